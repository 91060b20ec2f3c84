"""A service as its handlers: parsing, refusing, admission, deadlines and errors, once for all RPCs.

Handlers get a parsed request and a Call, and return a message, yield messages, or use a Stream. RPCs
of the descriptor without a handler answer UNIMPLEMENTED/NOT_SUPPORTED.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from rangefinder.deadline import Deadline
from rangefinder.edge.admission import Admission, CallLine, Places
from rangefinder.edge.obeyed import Obeyed, refuse_unsupported
from rangefinder.edge.status import abort
from rangefinder.errors import Internal, InvalidRequest, NotSupported, RangefinderError
from rangefinder.telemetry.logs import get_log
from rangefinder.telemetry.metrics import RpcMetrics

Context = grpc.aio.ServicerContext[bytes, bytes]
Request = TypeVar("Request", bound=Message)
T = TypeVar("T")

# Longer deadlines are cut to this: a retiring shard answers for as long.
DEADLINE_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler may know of its call beside the request."""

    deadline: Deadline


@dataclass(frozen=True, slots=True)
class Unary:
    """An RPC with one answer. `obeyed` names the fields of the request that are.

    None: all that are known, whatever else a newer process of the cluster may set (docs/adr/0017).
    """

    handle: Callable[[Any, Call], Awaitable[Message]]
    obeyed: Obeyed | None


@dataclass(frozen=True, slots=True)
class ServerStream:
    """An RPC with a stream of answers; its deadline is the caller's own, none where none was set."""

    handle: Callable[[Any], AsyncIterator[Message]]
    obeyed: Obeyed


class CallerGone(Exception):
    """The call ended before it was answered: no failure of this server."""


class Stream(Generic[Request]):
    """Both directions of a long-lived call. Any task may write; one reads."""

    def __init__(self, requests: AsyncIterator[bytes], context: Context, kind: type[Request]) -> None:
        self._requests, self._context, self._kind = requests, context, kind
        self._writing = asyncio.Lock()

    async def __aiter__(self) -> AsyncIterator[Request]:
        async for content in self._requests:
            yield parse(self._kind, content)

    async def write(self, message: Message) -> None:
        """Send a message; where nobody is there any more, this ends the handler."""
        content = serialize(message)
        async with self._writing:
            await write_to(self._context, content)


@dataclass(frozen=True, slots=True)
class BidiStream:
    """An RPC of two streams; the handler refuses unsupported fields of each message itself."""

    handle: Callable[[Any], Awaitable[None]]


Handler = Unary | ServerStream | BidiStream


def parse(kind: type[Request], content: bytes) -> Request:
    """A message from its bytes. Raises InvalidRequest."""
    try:
        return kind.FromString(content)
    except DecodeError:
        raise InvalidRequest(
            "request", f"the bytes are no {kind.DESCRIPTOR.full_name}: generate from the same protos"
        ) from None


async def ungrouped(work: Awaitable[T]) -> T:
    """Await work; an expected failure of one of its tasks is raised as it was, not in a group."""
    try:
        return await work
    except ExceptionGroup as group:
        expected, others = group.split((RangefinderError, CallerGone))
        if expected is None or others is not None:
            raise
        raise expected.exceptions[0] from None


async def write_to(context: Context, content: bytes) -> None:
    """Send a message of a stream. Raises CallerGone where gRPC cannot: it knows before we are told."""
    try:
        await context.write(content)
    except grpc.aio.UsageError:
        raise
    except grpc.aio.BaseError as error:
        raise CallerGone from error


def serialize(message: Message) -> bytes:
    """The bytes of an answer, or of its packed twin."""
    content: bytes = message.SerializeToString()
    return content


class Service:
    """A gRPC service made of handlers by RPC name."""

    def __init__(
        self,
        descriptor: ServiceDescriptor,
        handlers: Mapping[str, Handler],
        *,
        default_deadline_s: float,
        admission: Admission,
        metrics: RpcMetrics,
        line: CallLine | None = None,
    ) -> None:
        """line: where calls with one answer wait for their turn, if they do."""
        assert handlers.keys() <= set(descriptor.methods_by_name), "a handler without an RPC"
        self.descriptor = descriptor
        self._handlers = handlers
        self._default_deadline_s = default_deadline_s
        self._admission, self._metrics, self._line = admission, metrics, line
        self._log = get_log()

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """What a server is given. Bytes pass through: parsing is ours, so that garbage has a reason."""
        methods = {
            method.name: self._method(method, self._handlers.get(method.name))
            for method in self.descriptor.methods
        }
        return grpc.method_handlers_generic_handler(self.descriptor.full_name, methods)

    def _method(self, method: MethodDescriptor, handler: Handler | None) -> Any:
        kind = GetMessageClass(method.input_type)
        match handler:
            case Unary():
                return grpc.unary_unary_rpc_method_handler(self._unary(method, kind, handler))
            case ServerStream():
                return grpc.unary_stream_rpc_method_handler(self._streamed(method, kind, handler))
            case BidiStream():
                return grpc.stream_stream_rpc_method_handler(self._bidi(method, kind, handler))
            case None:
                return not_supported(f"{method.containing_service.name}.{method.name}")

    def _unary(self, method: MethodDescriptor, kind: type[Message], handler: Unary) -> Any:
        async def answer(content: bytes, call: Call) -> bytes:
            request = parse(kind, content)
            if handler.obeyed is not None:
                refuse_unsupported(request, handler.obeyed)
            return serialize(await handler.handle(request, call))

        async def answer_in_turn(content: bytes, call: Call, line: CallLine) -> bytes:
            arrived_s = time.monotonic()
            await line.enter(arrived_s, call.deadline.ends_at_s)
            try:
                return await answer(content, call)
            finally:
                line.leave(arrived_s, call.deadline.ends_at_s)

        def work(content: bytes, context: Context) -> Awaitable[bytes]:
            call = Call(self._deadline(context))
            if self._line is None:
                return answer(content, call)
            return answer_in_turn(content, call, self._line)

        async def guarded(content: bytes, context: Context) -> bytes:
            return await self._guard(method, context, lambda: work(content, context))

        return guarded

    def _streamed(self, method: MethodDescriptor, kind: type[Message], handler: ServerStream) -> Any:
        async def answer(content: bytes, context: Context) -> None:
            request = parse(kind, content)
            refuse_unsupported(request, handler.obeyed)
            async for reply in handler.handle(request):
                await write_to(context, serialize(reply))

        async def guarded(content: bytes, context: Context) -> None:
            await self._guard(method, context, lambda: answer(content, context))

        return guarded

    def _bidi(self, method: MethodDescriptor, kind: type[Message], handler: BidiStream) -> Any:
        async def guarded(requests: AsyncIterator[bytes], context: Context) -> None:
            stream = Stream(requests, context, kind)
            places = self._admission.streams
            await self._guard(method, context, lambda: handler.handle(stream), places)

        return guarded

    async def _guard(
        self,
        method: MethodDescriptor,
        context: Context,
        work: Callable[[], Awaitable[T]],
        places: Places | None = None,
    ) -> T:
        """Admit a call, do its work, and end it with a status and a reason where that fails."""
        began_s, reason = time.monotonic(), "OK"
        try:
            with places or self._admission.calls:
                return await ungrouped(work())
        except RangefinderError as error:
            reason = error.reason
            await abort(context, error)
        except asyncio.CancelledError:
            reason = "CANCELLED"
            raise
        except CallerGone:
            reason = "CANCELLED"
            # As gRPC ends a handler when it hears of it first: there is nobody to send a status to.
            raise asyncio.CancelledError from None
        except Exception:
            reason = Internal.reason
            self._log.exception("rpc_failed", rpc=method.full_name)
            await abort(context, Internal("a bug of the server: its log has the details"))
        finally:
            self._metrics.observe(method.name, reason, time.monotonic() - began_s)

    def _deadline(self, context: Context) -> Deadline:
        remaining_s: float | None = context.time_remaining()  # None: the caller set no deadline.
        if remaining_s is None:
            remaining_s = self._default_deadline_s
        deadline = Deadline.after(min(remaining_s, DEADLINE_S_MAX), time.monotonic)
        deadline.require_time_left()
        return deadline


def not_supported(rpc: str) -> Any:
    """A handler of any RPC, unary or not, that refuses it."""

    async def refuse(requests: AsyncIterator[bytes], context: Context) -> None:
        await abort(context, NotSupported(f"{rpc} is not supported by this server"))

    return grpc.stream_stream_rpc_method_handler(refuse)


class RefuseUnknown(grpc.GenericRpcHandler):
    """Answers NOT_SUPPORTED, with its reason, where a server has no such service or RPC."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return not_supported(handler_call_details.method)
