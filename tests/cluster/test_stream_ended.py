"""What a server does when the other side of a call is gone: it stops, and takes it for no failure."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from rangefinder.edge.admission import Admission
from rangefinder.edge.channel import server_options
from rangefinder.edge.server import Server
from rangefinder.edge.service import BidiStream, Handler, ServerStream, Service
from rangefinder.errors import Overloaded
from rangefinder.v1 import item_pb2, recommendation_pb2
from rangefinder.v1.item_pb2 import ScanItemsResponse
from rangefinder.v1.recommendation_pb2 import RetrieveStreamResponse
from tests.kit.calls import failure_of

CALL_S_MAX = 10


class Outcomes:
    """Reasons of calls that ended, in place of the metric that counts them."""

    def __init__(self) -> None:
        self.reasons: asyncio.Queue[str] = asyncio.Queue()

    def observe(self, rpc: str, reason: str, seconds: float) -> None:
        del rpc, seconds
        self.reasons.put_nowait(reason)


@asynccontextmanager
async def server_of(
    service: str, handlers: dict[str, Handler]
) -> AsyncIterator[tuple[grpc.aio.Channel, Outcomes, Admission]]:
    """A server of some handlers, and a channel to it."""
    files = (recommendation_pb2, item_pb2)
    described = {name: s for f in files for name, s in f.DESCRIPTOR.services_by_name.items()}
    outcomes: Any = Outcomes()
    admission = Admission(10)
    served = Service(
        described[service], handlers, default_deadline_s=1, admission=admission, metrics=outcomes
    )
    server = await Server.start("127.0.0.1:0", [served], admission, server_options(1 << 20, 1 << 20))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel, outcomes, admission
    await server.server.stop(0)


async def until_cancelled() -> None:
    """Return when gRPC says that the caller is gone, as if it had not been heard."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return


@pytest.mark.parametrize("in_group", [False, True])
async def test_writing_to_a_stream_whose_reader_has_gone_is_no_failure(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], in_group: bool
) -> None:
    """The write ends the handler, also from a task of its group; it counts as CANCELLED, not as bug."""

    async def write_late(stream: Any) -> None:
        await stream.write(RetrieveStreamResponse(batch_id=1))
        await until_cancelled()
        await stream.write(RetrieveStreamResponse(batch_id=2))
        raise AssertionError("written to nobody")

    async def handle(stream: Any) -> None:
        if not in_group:
            return await write_late(stream)
        async with asyncio.TaskGroup() as group:
            group.create_task(write_late(stream), name="write-late")
        return None

    handlers: dict[str, Handler] = {"RetrieveStream": BidiStream(handle)}
    await require_quiet_end("RecommendationService", "RetrieveStream", handlers, caplog, capsys)


async def test_a_stream_of_answers_whose_reader_has_gone_is_no_failure(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """So with answers that a handler yields."""

    async def handle(request: Message) -> AsyncIterator[Message]:
        del request
        yield ScanItemsResponse(keys=[1])
        await until_cancelled()
        yield ScanItemsResponse(keys=[2])
        raise AssertionError("written to nobody")

    handlers: dict[str, Handler] = {"ScanItems": ServerStream(handle, frozenset())}
    await require_quiet_end("ItemService", "ScanItems", handlers, caplog, capsys)


async def require_quiet_end(
    service: str,
    rpc: str,
    handlers: dict[str, Handler],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A caller that leaves after one answer ends the call without a word in the log."""
    with caplog.at_level(logging.INFO):
        async with server_of(service, handlers) as (channel, outcomes, admission):
            name = f"/rangefinder.v1.{service}/{rpc}"
            method: Any = channel.unary_stream(name)
            call = method(b"", timeout=CALL_S_MAX)
            await call.read()
            call.cancel()
            async with asyncio.timeout(CALL_S_MAX):
                assert "CANCELLED" == await outcomes.reasons.get()
                await admission.wait_idle()
    output = capsys.readouterr()
    assert "Traceback" not in caplog.text + output.out + output.err


async def test_a_failure_of_a_task_is_told_to_a_caller_that_is_there() -> None:
    """What one task of a handler is refused with ends the call, and is not taken for a lost caller."""

    async def fail() -> None:
        raise Overloaded("too much")

    async def handle(stream: Any) -> None:
        works: list[Callable[[], Awaitable[None]]] = [fail, until_cancelled]
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(run(work), name=work.__name__)

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        await work()

    handlers: dict[str, Handler] = {"RetrieveStream": BidiStream(handle)}
    async with server_of("RecommendationService", handlers) as (channel, outcomes, _):
        name = "/rangefinder.v1.RecommendationService/RetrieveStream"
        method: Any = channel.unary_stream(name)
        call = method(b"", timeout=CALL_S_MAX)
        failure = await failure_of(call.read())
        assert ("RESOURCE_EXHAUSTED", "OVERLOADED") == (failure.code, failure.reason)
        assert "OVERLOADED" == await outcomes.reasons.get()
