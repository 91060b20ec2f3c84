"""A router that does what a test says, and keeps what it was asked: the far end of a client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2

from rangefinder.v1.recommendation_pb2 import (
    RecommendRequest,
    RecommendResponse,
    RetrieveBatchResponse,
    RetrieveRequest,
    RetrieveResponse,
    RetrieveStreamRequest,
    RetrieveStreamResponse,
)

Context = grpc.aio.ServicerContext[Any, Any]
Script = Callable[[Context], Awaitable[None]]  # Before the answer, or instead of it.
StreamScript = Callable[
    ["ScriptedRouter", AsyncIterator[RetrieveStreamRequest], Context], Awaitable[None]
]

_SERVICE = "rangefinder.v1.RecommendationService"


@dataclass(slots=True)
class ScriptedRouter:
    """Answers every request with nothing, unless its script says otherwise."""

    port: int = 0
    script: Script | None = None
    stream_script: StreamScript | None = None
    is_ready: bool = True
    probe_count: int = 0
    asked: list[str] = field(default_factory=list)  # Users, by request.
    batch_ids: list[int] = field(default_factory=list)  # In the order in which they were read.
    cancelled_ids: list[int] = field(default_factory=list)
    under_way: int = 0  # Calls.
    cut_off: int = 0  # Calls that their caller cancelled.

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def recommend(self, request: RecommendRequest, context: Context) -> RecommendResponse:
        await self._follow(request.user_id, context)
        return RecommendResponse()

    async def retrieve(self, request: RetrieveRequest, context: Context) -> RetrieveResponse:
        await self._follow("", context)
        return RetrieveResponse()

    async def _follow(self, user_id: str, context: Context) -> None:
        self.asked.append(user_id)
        self.under_way += 1
        try:
            if self.script is not None:
                await self.script(context)
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        finally:
            self.under_way -= 1

    async def stream(self, requests: AsyncIterator[RetrieveStreamRequest], context: Context) -> None:
        self.under_way += 1
        try:
            await (self.stream_script or answer_all)(self, requests, context)
        finally:
            self.under_way -= 1

    async def read(
        self, requests: AsyncIterator[RetrieveStreamRequest]
    ) -> AsyncIterator[RetrieveStreamRequest]:
        """Batches; what is cancelled is noted."""
        async for request in requests:
            if request.cancel:
                self.cancelled_ids.append(request.batch_id)
            else:
                self.batch_ids.append(request.batch_id)
                yield request

    async def check(self, request: bytes, context: Context) -> bytes:
        assert b"\n\treadiness" == request
        self.probe_count += 1
        return b"\x08\x01" if self.is_ready else b"\x08\x02"


async def answer_all(
    router: ScriptedRouter, requests: AsyncIterator[RetrieveStreamRequest], context: Context
) -> None:
    """The stream of a router that is well."""
    async for request in router.read(requests):
        await context.write(answer_to(request))


async def silent(
    router: ScriptedRouter, requests: AsyncIterator[RetrieveStreamRequest], context: Context
) -> None:
    """The stream of a router that reads and does nothing more; from then on it is not ready either."""
    async for _ in router.read(requests):
        router.is_ready = False
    await hang(context)


def answer_to(request: RetrieveStreamRequest) -> RetrieveStreamResponse:
    """Items of a batch: one for each query, whose id is the id of the batch."""
    answer = RetrieveBatchResponse(item_counts=[1] * request.batch.queries.count)
    answer.items.integers.extend([request.batch_id] * request.batch.queries.count)
    answer.scores.extend([1.0] * request.batch.queries.count)
    return RetrieveStreamResponse(batch_id=request.batch_id, batch=answer)


async def hang(context: Context) -> None:
    """Say nothing until the caller is gone."""
    await asyncio.Event().wait()


def fail(code: str, reason: str = "", *, retry_after_ms: int = 0) -> Script:
    """Fail every call: without a reason, as gRPC itself would."""

    async def script(context: Context) -> None:
        status = status_pb2.Status(code=code_pb2.Code.Value(code), message="scripted")
        info = error_details_pb2.ErrorInfo(reason=reason, domain="rangefinder")
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(retry_after_ms)
        for detail in (info, retry):
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        trailers = (("grpc-status-details-bin", status.SerializeToString()),) if reason else ()
        await context.abort(grpc.StatusCode[code], "scripted", trailers)

    return script


@asynccontextmanager
async def running(router: ScriptedRouter) -> AsyncIterator[ScriptedRouter]:
    """Serve until the block ends; then its port refuses connections. It keeps a port it had."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    methods: dict[str, Any] = {
        "Recommend": unary(
            router.recommend, RecommendRequest.FromString, RecommendResponse.SerializeToString
        ),
        "Retrieve": unary(
            router.retrieve, RetrieveRequest.FromString, RetrieveResponse.SerializeToString
        ),
        "RetrieveStream": stream(
            router.stream, RetrieveStreamRequest.FromString, RetrieveStreamResponse.SerializeToString
        ),
    }
    health: dict[str, Any] = {"Check": unary(router.check)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(_SERVICE, methods),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
        )
    )
    router.port = server.add_insecure_port(router.address)
    await server.start()
    try:
        yield router
    finally:
        await server.stop(0)


@asynccontextmanager
async def three_routers() -> AsyncIterator[list[ScriptedRouter]]:
    async with (
        running(ScriptedRouter()) as first,
        running(ScriptedRouter()) as second,
        running(ScriptedRouter()) as third,
    ):
        yield [first, second, third]
