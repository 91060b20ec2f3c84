"""Our errors as gRPC statuses with google.rpc details, and back again.

Every error carries google.rpc.ErrorInfo {domain "rangefinder", reason}; some carry BadRequest,
RetryInfo, or the Certificate of what could be searched. See https://google.aip.dev/193.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from rangefinder.errors import (
    CoverageTooLow,
    DeadlineSpent,
    Draining,
    InvalidRequest,
    Overloaded,
    RangefinderError,
    ReplicaUnavailable,
)
from rangefinder.v1.types_pb2 import Certificate

DOMAIN = "rangefinder"
DETAILS_KEY = "grpc-status-details-bin"

# Trailers over 8 KiB are refused by many clients; a missed range takes about 50 bytes.
_MISSED_RANGES_MAX = 100


def code_of(error: RangefinderError) -> int:
    """The google.rpc.Code of an error."""
    return int(code_pb2.Code.Value(error.status))


async def abort(context: "grpc.aio.ServicerContext[bytes, bytes]", error: RangefinderError) -> NoReturn:
    """End a call with an error's status, message and details; where nobody is there, as cancelled."""
    if isinstance(error, Overloaded):
        details = _details_of_refusal(error.message, error.retry_after_ms)
    else:
        details = _status_details(error)
    try:
        await context.abort(grpc.StatusCode[error.status], error.message, ((DETAILS_KEY, details),))
    except (grpc.aio.AbortError, grpc.aio.UsageError):
        raise
    except grpc.aio.BaseError:  # gRPC knows before we are told.
        raise asyncio.CancelledError from None


@lru_cache(maxsize=1024)
def _details_of_refusal(message: str, retry_after_ms: int) -> bytes:
    """Made once: of a server that has too much to do, most calls are refused, and alike."""
    return _status_details(Overloaded(message, retry_after_ms))


def _status_details(error: RangefinderError) -> bytes:
    status = status_pb2.Status(code=code_of(error), message=error.message)
    status.details.extend(_packed(detail) for detail in _details(error))
    content: bytes = status.SerializeToString()
    return content


def _details(error: RangefinderError) -> list[Message]:
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    match error:
        case InvalidRequest():
            field, description = error.violation.field, error.violation.description
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=field, description=description
            )
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        case Overloaded():
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(error.retry_after_ms)
            details.append(retry)
        case CoverageTooLow() if error.certificate is not None:
            certificate = Certificate()
            certificate.CopyFrom(error.certificate)
            del certificate.missed_ranges[_MISSED_RANGES_MAX:]
            details.append(certificate)
    return details


def _packed(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed


def error_of(failure: grpc.aio.AioRpcError) -> RangefinderError:
    """What a failed call means to us. Without our details it is gRPC's own word."""
    for key, value in failure.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            found = _error_in(value)
            if found is not None:
                return found
    message = failure.details() or failure.code().name
    if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineSpent(message)
    if failure.code() is grpc.StatusCode.UNAVAILABLE:
        return ReplicaUnavailable(message)
    if failure.code() is grpc.StatusCode.CANCELLED:
        # Nobody here cancelled it: that is raised as CancelledError. gRPC's own server answers so what
        # arrives between its decision to stop and its caller's hearing of it, and nothing was done.
        return Draining("the server was about to end: ask another, or again")
    return UnexpectedStatus(f"{failure.code().name}: {message}")


@contextmanager
def translated() -> Iterator[None]:
    """Raise our error where a call in the block fails."""
    try:
        yield
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure) from None


class UnexpectedStatus(RangefinderError, status="UNKNOWN", reason="UNEXPECTED_STATUS"):
    """A call failed with a status that no server of ours gives: a proxy's, or a stranger's."""


def _error_in(details: bytes) -> RangefinderError | None:
    status = status_pb2.Status()
    try:
        status.ParseFromString(details)
    except DecodeError:
        return None
    reason, certificate, retry_after_ms, violation = "", None, 0, ("request", status.message)
    for detail in status.details:
        info, bad, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad) and bad.field_violations:
            violation = (bad.field_violations[0].field, bad.field_violations[0].description)
        elif detail.Unpack(retry):
            retry_after_ms = retry.retry_delay.ToMilliseconds()
        elif detail.Is(Certificate.DESCRIPTOR):
            certificate = Certificate()
            detail.Unpack(certificate)
    return error_with_reason(reason, status.message, violation, retry_after_ms, certificate)


def error_with_reason(
    reason: str,
    message: str,
    violation: tuple[str, str] = ("request", ""),
    retry_after_ms: int = 0,
    certificate: Certificate | None = None,
) -> RangefinderError | None:
    """The error of a reason; None where this version knows no such reason."""
    kind = RangefinderError.by_reason.get(reason)
    if kind is None:
        return None
    if kind is InvalidRequest:
        return InvalidRequest(violation[0], violation[1] or message)
    if kind is Overloaded:
        return Overloaded(message, retry_after_ms)
    if kind is CoverageTooLow:
        return CoverageTooLow(message, certificate)
    return kind(message)
