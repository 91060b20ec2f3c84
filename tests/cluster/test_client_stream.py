"""A client's stream to scripted routers: no batch is lost where another router is there, none repeated
where it was answered, and nothing is left behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest

from rangefinder import Client, RetrievedBatch
from rangefinder.errors import DeadlineSpent, ReplicaUnavailable, UnknownRelease
from rangefinder.v1.recommendation_pb2 import (
    BatchFailure,
    RetrieveStreamRequest,
    RetrieveStreamResponse,
)
from tests.kit.scripted_router import (
    Context,
    ScriptedRouter,
    StreamScript,
    answer_all,
    answer_to,
    running,
    silent,
)
from tests.kit.waiting import until

Requests = AsyncIterator[RetrieveStreamRequest]

DEADLINE_S = 10.0
IN_FLIGHT_MAX = 64


def queries(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.zeros((count, 4), np.float32)


@asynccontextmanager
async def streaming(script: StreamScript) -> AsyncIterator[tuple[ScriptedRouter, Client]]:
    """A router with a script, and a client of it."""
    async with (
        running(ScriptedRouter(stream_script=script)) as router,
        Client(router.address, deadline_s=DEADLINE_S) as client,
    ):
        yield router, client


async def ask_all(client: Client, batch_count: int) -> list[RetrievedBatch]:
    """Batches at once over one stream; the first has one query, the next two, ..."""
    async with client.stream() as stream:
        asked = (stream.retrieve_batch(queries(number + 1)) for number in range(batch_count))
        return await asyncio.gather(*asked)


def holding(count: int, then: StreamScript) -> StreamScript:
    """Answer nothing before `count` batches were read; then go on as `then`, given all of them."""

    async def script(router: ScriptedRouter, requests: Requests, context: Context) -> None:
        reading = router.read(requests)
        held: list[RetrieveStreamRequest] = []
        while len(held) < count:
            held.append(await anext(reading))

        async def those() -> Requests:
            for request in held:
                yield request

        await then(router, those(), context)

    return script


async def drain(router: ScriptedRouter, read: Requests, context: Context) -> None:
    """Say so, answer what was read, and end the call."""
    router.is_ready = False
    await context.write(RetrieveStreamResponse(draining=True))
    async for request in read:
        await context.write(answer_to(request))


async def break_off(router: ScriptedRouter, read: Requests, context: Context) -> None:
    """Answer the first batch, and be gone."""
    router.is_ready = False
    await context.write(answer_to(await anext(read)))
    await context.abort(grpc.StatusCode.UNKNOWN, "scripted")


async def test_answers_come_to_who_asked() -> None:
    """Of many batches at once each has its own answer, over one call."""
    async with streaming(answer_all) as (router, client):
        answers = await ask_all(client, 100)
    assert list(range(1, 101)) == [len(answer.item_counts) for answer in answers]
    assert set(range(1, 101)) == set(router.batch_ids)
    assert 0 == router.under_way


async def test_at_most_64_batches_are_in_flight() -> None:
    """The 65th is not sent before another is answered, and its time runs while it waits."""
    gate = asyncio.Event()

    async def script(router: ScriptedRouter, requests: Requests, context: Context) -> None:
        held: list[RetrieveStreamRequest] = []
        async for request in router.read(requests):
            held.append(request)
            if len(held) == IN_FLIGHT_MAX:
                await gate.wait()
            if gate.is_set():
                for each in held:
                    await context.write(answer_to(each))
                held.clear()

    async with streaming(script) as (router, client), client.stream() as stream:
        asked = [stream.retrieve_batch(queries(1)) for _ in range(IN_FLIGHT_MAX)]
        first = asyncio.gather(*asked)
        await until(lambda: IN_FLIGHT_MAX == len(router.batch_ids), within_s=10, what="64 batches")
        with pytest.raises(DeadlineSpent):
            await stream.retrieve_batch(queries(1), deadline_s=0.1)
        gate.set()
        assert IN_FLIGHT_MAX == len(await first)
        assert IN_FLIGHT_MAX == len(router.batch_ids)
        await stream.retrieve_batch(queries(1))


@pytest.mark.parametrize("leave", [drain, break_off])
async def test_a_router_that_leaves_loses_no_batch(leave: StreamScript) -> None:
    """Of 64 batches in flight 40 were read when the router drains, or breaks off: each is answered,
    by it or by the other router, and none by both."""
    leaving = ScriptedRouter(stream_script=holding(40, leave))
    async with (
        running(leaving),
        running(ScriptedRouter()) as other,
        Client(leaving.address, other.address, deadline_s=DEADLINE_S) as client,
    ):
        while not leaving.batch_ids:  # Streams take turns, too.
            answers = await ask_all(client, IN_FLIGHT_MAX)
            if not leaving.batch_ids:
                other.batch_ids.clear()
    answered = 40 if leave is drain else 1
    assert list(range(1, IN_FLIGHT_MAX + 1)) == [len(answer.item_counts) for answer in answers]
    assert (40, IN_FLIGHT_MAX - answered) == (len(leaving.batch_ids), len(other.batch_ids))


async def test_the_only_router_may_drain_and_come_back() -> None:
    """Where routers share an address, what the one that drains has not read goes to the next one."""
    calls = 0

    async def script(router: ScriptedRouter, requests: Requests, context: Context) -> None:
        nonlocal calls
        calls += 1
        await (holding(3, drain) if calls <= 3 else answer_all)(router, requests, context)

    async with streaming(script) as (_, client):
        answers = await ask_all(client, IN_FLIGHT_MAX)
    assert list(range(1, IN_FLIGHT_MAX + 1)) == [len(answer.item_counts) for answer in answers]
    assert 4 == calls


async def test_a_batch_has_its_own_deadline_and_is_dropped_by_a_message() -> None:
    """A batch that is not answered in time, or whose caller gives up, is cancelled on the stream,
    which goes on: no call is cut."""

    async def script(router: ScriptedRouter, requests: Requests, context: Context) -> None:
        async for request in router.read(requests):
            if request.batch.queries.count == 1:
                await context.write(answer_to(request))

    async with streaming(script) as (router, client), client.stream() as stream:
        with pytest.raises(DeadlineSpent):
            await stream.retrieve_batch(queries(2), deadline_s=0.3)
        given_up = asyncio.create_task(stream.retrieve_batch(queries(3)))
        await until(lambda: 2 == len(router.batch_ids), within_s=10, what="the second batch")
        given_up.cancel()
        await stream.retrieve_batch(queries(1))
        await until(lambda: 2 == len(router.cancelled_ids), within_s=10, what="two cancels")
        assert 1 == router.under_way
    assert ([1, 2, 3], [1, 2]) == (router.batch_ids, router.cancelled_ids)


async def test_a_stream_leaves_a_frozen_router() -> None:
    """After three deadlines without a word batches go to the other router; the old call is ended."""

    frozen, other = ScriptedRouter(stream_script=silent), ScriptedRouter()
    async with running(frozen), running(other), Client(frozen.address, other.address) as client:
        async with client.stream() as first, client.stream() as second:  # One at each.
            for stream in (first, second):
                for _ in range(3):
                    with contextlib.suppress(DeadlineSpent):
                        await stream.retrieve_batch(queries(1), deadline_s=0.3)
            count = len(other.batch_ids)
            for stream in (first, second):
                await stream.retrieve_batch(queries(1), deadline_s=DEADLINE_S)
        await until(lambda: 0 == frozen.under_way, within_s=10, what="the old call is over")
    assert (3, count + 2) == (len(frozen.batch_ids), len(other.batch_ids))


async def test_a_batch_that_fails_does_not_end_the_stream() -> None:
    """It fails with the error of its reason; one that may be asked again is."""
    reasons = ["UNKNOWN_RELEASE", "OVERLOADED"]

    async def script(router: ScriptedRouter, requests: Requests, context: Context) -> None:
        async for request in router.read(requests):
            if not reasons:
                await context.write(answer_to(request))
                continue
            failure = BatchFailure(reason=reasons.pop(0), message="scripted", retry_after_ms=10)
            await context.write(RetrieveStreamResponse(batch_id=request.batch_id, failure=failure))

    async with streaming(script) as (router, client), client.stream() as stream:
        with pytest.raises(UnknownRelease):
            await stream.retrieve_batch(queries(1))
        await stream.retrieve_batch(queries(2))
        assert 1 == router.under_way
    assert 3 == len(router.batch_ids)


async def test_without_any_router_a_stream_fails_soon() -> None:
    """A refused connection is told at once, not at the deadline; the stream works when one is there."""
    async with running(ScriptedRouter()) as router:
        pass
    async with Client(router.address, deadline_s=DEADLINE_S) as client, client.stream() as stream:
        async with asyncio.timeout(DEADLINE_S / 2):
            with pytest.raises(ReplicaUnavailable):
                await stream.retrieve_batch(queries(1), deadline_s=DEADLINE_S)
        async with running(router):

            async def ask() -> bool:
                try:
                    await stream.retrieve_batch(queries(1))
                except ReplicaUnavailable:
                    return False
                return True

            async with asyncio.timeout(DEADLINE_S):
                while not await ask():
                    pass
    assert 1 == len(router.batch_ids)
