"""RetrieveStream without its wire: batches that wait, and when their callers are told."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import cast

import pytest

from rangefinder.concurrency_limit import ConcurrencyLimit
from rangefinder.deadline import Deadline
from rangefinder.edge.admission import CallLine
from rangefinder.internal.v1.packed_pb2 import (
    PackedRetrieveBatchResponse,
    PackedRetrieveStreamResponse,
)
from rangefinder.v1.recommendation_pb2 import RetrieveBatchRequest, RetrieveStreamRequest
from rangefinder.v1.types_pb2 import VectorBlock
from router import retrieve_stream
from router.retrieve_stream import PublicStream, RetrieveStreams

BATCH = RetrieveBatchRequest(queries=VectorBlock(float32_le=bytes(8), count=1), item_count=1)


class FakeStream:
    """What a caller sends, and what it is answered."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[RetrieveStreamRequest | None] = asyncio.Queue()
        self.answers: asyncio.Queue[PackedRetrieveStreamResponse] = asyncio.Queue()

    def ask(self, batch_id: int, allowed_ms: int) -> None:
        self.requests.put_nowait(
            RetrieveStreamRequest(batch_id=batch_id, batch=BATCH, time_allowed_ms=allowed_ms)
        )

    async def __aiter__(self) -> AsyncIterator[RetrieveStreamRequest]:
        while request := await self.requests.get():
            yield request

    async def write(self, response: PackedRetrieveStreamResponse) -> None:
        self.answers.put_nowait(response)

    async def next(self) -> tuple[int, str]:
        """Batch and reason of the next answer."""
        answer = await asyncio.wait_for(self.answers.get(), 10)
        return answer.batch_id, answer.failure.reason


class Work:
    """Batches that run until the test lets them end."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def run(
        self, request: RetrieveBatchRequest, deadline: Deadline
    ) -> PackedRetrieveBatchResponse:
        del request, deadline
        await self.may_end.wait()
        return PackedRetrieveBatchResponse()


def line_of(places: int) -> CallLine:
    limit = ConcurrencyLimit(time.monotonic(), limit_min=places, limit_max=places, tolerated_s=1.0)
    return CallLine(limit)


@pytest.mark.parametrize("waits_for", ["its turn", "a place in the stream"])
async def test_a_batch_that_waits_is_told_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch, waits_for: str
) -> None:
    """And not when those before it have ended; what comes after it is read and answered."""
    if waits_for == "its turn":
        line = line_of(1)
    else:
        line = line_of(10)
        monkeypatch.setattr(retrieve_stream, "BATCHES_IN_FLIGHT_MAX", 1)
    work, stream = Work(), FakeStream()
    serving = asyncio.create_task(
        RetrieveStreams(work.run, line).serve(cast(PublicStream, stream)), name="serve"
    )
    stream.ask(1, 30_000)
    stream.ask(2, 50)
    assert (2, "DEADLINE_SPENT") == await stream.next()
    stream.ask(3, 30_000)
    work.may_end.set()
    assert [(1, ""), (3, "")] == sorted([await stream.next(), await stream.next()])
    stream.requests.put_nowait(None)
    await serving
    assert (0, 0) == (line.running, line.waiting)
