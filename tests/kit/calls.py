"""Calls as a stranger makes them: raw bytes to any method, and failures taken apart.

It shares no code with the edge that it checks: details are read as https://google.aip.dev/193 says.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

# A field number that no message of ours has.
UNKNOWN_FIELD = 9_999

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a call failed; empty where the failure does not say."""

    code: str
    reason: str = ""
    domain: str = ""
    fields: tuple[str, ...] = ()  # Of BadRequest.
    message: str = ""

    @property
    def is_not_supported(self) -> bool:
        return (self.code, self.domain, self.reason) == (
            "UNIMPLEMENTED",
            "rangefinder",
            "NOT_SUPPORTED",
        )


async def outcome_of(call: Awaitable[T]) -> T | Failure:
    """What a call answers, or how it fails."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return failure_in(error)


async def failure_of(call: Awaitable[object]) -> Failure:
    """How a call fails; one that succeeds fails the test."""
    outcome = await outcome_of(call)
    assert isinstance(outcome, Failure), f"answered with {str(outcome)[:500]!r}"
    return outcome


def failure_in(error: grpc.aio.AioRpcError) -> Failure:
    code, message = error.code().name, error.details() or ""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
            assert message == status.message
            return _detailed(code, status)
    return Failure(code=code, message=message)


def _detailed(code: str, status: Any) -> Failure:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info) if detail.Is(info.DESCRIPTOR) else detail.Unpack(bad)
    return Failure(
        code=code,
        reason=info.reason,
        domain=info.domain,
        fields=tuple(violation.field for violation in bad.field_violations),
        message=status.message,
    )


async def answers_to_bytes(
    channel: grpc.aio.Channel, method: str, content: bytes, timeout_s: float = 10
) -> list[bytes]:
    """Call "package.Service/Method", of any kind, with one message and take all answers."""
    call: Any = channel.unary_stream(f"/{method}")
    return [answer async for answer in call(content, timeout=timeout_s)]


def add_unknown_field(message: Message) -> None:
    """Make the message one that a newer program would send."""
    message.MergeFromString(_tag(UNKNOWN_FIELD) + b"\x01")


def _tag(number: int) -> bytes:
    """The tag of a varint field: its number and type, seven bits a byte, the lowest first."""
    value, content = number << 3, bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    return bytes([*content, value])
