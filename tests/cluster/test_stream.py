"""RetrieveStream: batches over one long call; its promises when things go wrong on either side."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
from google.rpc import code_pb2

from rangefinder.errors import CoverageTooLow
from rangefinder.v1.recommendation_pb2 import (
    RetrieveBatchRequest,
    RetrieveRequest,
    RetrieveStreamRequest,
    RetrieveStreamResponse,
)
from rangefinder.v1.types_pb2 import Filter, ItemIds, VectorBlock
from tests.kit.calls import failure_of
from tests.kit.served import Release, Served, serving

if TYPE_CHECKING:  # It stands in the type stubs alone.
    Call = grpc.aio.StreamStreamCall[RetrieveStreamRequest, RetrieveStreamResponse]

STREAM = "rangefinder.v1.RecommendationService/RetrieveStream"
NODES = ("node-0", "node-1")
IN_FLIGHT_MAX = 64
STREAMS_MAX = 256


@pytest.fixture(scope="module")
async def own(
    plain_release: Release, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A cluster that this file alone may harm."""
    async with serving(plain_release, tmp_path_factory.mktemp("stream") / "cluster") as served:
        yield served


@pytest.fixture
async def whole(own: Served) -> Served:
    """It, recovered from the test before."""
    await own.until_whole()
    return own


def batch(served: Served, rows: int = 1, **fields: Any) -> RetrieveBatchRequest:
    queries = served.catalogue.queries[:rows]
    block = VectorBlock(float32_le=queries.tobytes(), count=rows)
    values: dict[str, Any] = {"queries": block, "item_count": 10} | fields
    return RetrieveBatchRequest(**values)


def request(
    batch_id: int, batch: RetrieveBatchRequest, time_allowed_ms: int = 10_000
) -> RetrieveStreamRequest:
    return RetrieveStreamRequest(batch_id=batch_id, batch=batch, time_allowed_ms=time_allowed_ms)


def faulty(batch_id: int) -> RetrieveStreamRequest:
    """A batch that fails as soon as it is read: so all sent before it have been read, too."""
    return request(batch_id, RetrieveBatchRequest(), time_allowed_ms=10_000)


def open_stream(served: Served) -> "Call":
    return served.recommendations.RetrieveStream(timeout=60)


async def read(call: "Call") -> RetrieveStreamResponse:
    response = await call.read()
    assert isinstance(response, RetrieveStreamResponse), "the stream ended"
    return response


async def rest_of(call: "Call") -> list[RetrieveStreamResponse]:
    """All answers until the server ends the call, which it does with OK."""
    responses = []
    while (response := await call.read()) is not grpc.aio.EOF:
        assert isinstance(response, RetrieveStreamResponse)
        responses.append(response)
    assert grpc.StatusCode.OK is await call.code()
    return responses


async def finish(call: "Call") -> list[RetrieveStreamResponse]:
    await call.done_writing()
    return await rest_of(call)


def failed_as(response: RetrieveStreamResponse) -> tuple[int, str, str]:
    """Batch, code and reason of a failure."""
    assert "failure" == response.WhichOneof("outcome"), response
    code = code_pb2.Code.Name(response.failure.code)
    return response.batch_id, code, response.failure.reason


async def test_answers_come_as_they_are_ready(whole: Served) -> None:
    """A batch that may take long holds up none that may not: they are matched by id, not by order."""
    call = open_stream(whole)
    with whole.frozen(*NODES):
        await call.write(request(2**64 - 1, batch(whole), time_allowed_ms=1_500))
        await call.write(request(2, batch(whole), time_allowed_ms=200))
        await call.write(faulty(3))
        answers = await finish(call)
    assert [3, 2, 2**64 - 1] == [answer.batch_id for answer in answers]
    for answer in answers[1:]:
        certificate = answer.batch.certificate
        assert (0, 6_000) == (certificate.item_count_searched, certificate.item_count)
        assert {"DEADLINE_SPENT"} == {missed.reason for missed in certificate.missed_ranges}


async def test_without_a_limit_the_default_holds(whole: Served) -> None:
    """A call without a deadline and a batch without a time limit wait no longer than 200 ms."""
    call, single = open_stream(whole), RetrieveRequest(item_count=10)
    single.query.values.extend(whole.catalogue.queries[0].tolist())
    with whole.frozen(*NODES):
        await call.write(request(1, batch(whole), time_allowed_ms=0))
        certificates = [
            (await whole.recommendations.Retrieve(single)).certificate,
            (await read(call)).batch.certificate,
        ]
    for certificate in certificates:
        assert 0 == certificate.item_count_searched
        assert sum(timing.duration_ms for timing in certificate.stage_timings) < 1_000
    assert [] == await finish(call)


async def test_minimum_coverage_decides_whether_a_part_is_an_answer(whole: Served) -> None:
    """With half of the catalogue out of reach, 0.5 is answered and 0.51 is COVERAGE_TOO_LOW."""
    query = whole.catalogue.queries[0]
    call = open_stream(whole)
    with whole.frozen("node-1"):
        for number, minimum in enumerate((0.5, 0.51), start=1):
            await call.write(
                request(number, batch(whole, minimum_coverage=minimum), time_allowed_ms=400)
            )
        retrieve, retrieve_batch = whole.client.retrieve, whole.client.retrieve_batch
        enough, too_little, enough_for_all, too_little_for_all = await asyncio.gather(
            retrieve(query, minimum_coverage=0.5, deadline_s=0.4),
            retrieve(query, minimum_coverage=0.51, deadline_s=0.4),
            retrieve_batch([query], minimum_coverage=0.5, deadline_s=0.4),
            retrieve_batch([query], minimum_coverage=0.51, deadline_s=0.4),
            return_exceptions=True,
        )
        answers = {answer.batch_id: answer for answer in await finish(call)}
    for answer in (enough, enough_for_all):
        assert not isinstance(answer, BaseException)
        assert 0.5 == answer.certificate.coverage
        assert ["DEADLINE_SPENT"] == [each.reason for each in answer.certificate.missed_ranges]
    for error in (too_little, too_little_for_all):
        assert isinstance(error, CoverageTooLow)
        assert error.certificate is not None
        assert 3_000 == error.certificate.item_count_searched
    assert 3_000 == answers[1].batch.certificate.item_count_searched
    assert (2, "UNAVAILABLE", "COVERAGE_TOO_LOW") == failed_as(answers[2])


async def test_garbage_ends_its_own_stream_only(plain: Served) -> None:
    """Bytes that are no message end the stream with INVALID_REQUEST; another stream goes on."""
    other = open_stream(plain)
    await other.write(request(1, batch(plain)))
    assert 1 == (await read(other)).batch_id
    stranger: Any = plain.channel.stream_stream(f"/{STREAM}")(timeout=10)
    await stranger.write(request(1, batch(plain)).SerializeToString())
    assert 1 == RetrieveStreamResponse.FromString(await stranger.read()).batch_id
    await stranger.write(b"\xff\xff")
    failure = await failure_of(stranger.read())
    expected = ("INVALID_ARGUMENT", "rangefinder", "INVALID_REQUEST", ("request",))
    assert expected == (failure.code, failure.domain, failure.reason, failure.fields)
    await other.write(request(2, batch(plain)))
    assert [2] == [answer.batch_id for answer in await finish(other)]


async def test_a_batch_that_fails_does_not_end_the_stream(plain: Served) -> None:
    """Each bad batch has its own failure, with reason and code of a unary call; the rest go on."""
    good = batch(plain)
    bad = {
        0: request(0, good),
        1: request(1, batch(plain, queries=VectorBlock(float32_le=b"\0" * 4, count=1))),
        2: request(2, good, time_allowed_ms=-1),
        3: RetrieveStreamRequest(batch_id=3),
        4: RetrieveStreamRequest(batch_id=4, cancel=False),
        5: request(5, batch(plain, release="none such")),
        6: request(6, batch(plain, filter=Filter())),
        7: request(7, batch(plain, item_count=10_001)),
        8: request(8, batch(plain, excluded_items=[ItemIds(texts=["a"])])),
        10: RetrieveStreamRequest(batch_id=10, cancel=True, time_allowed_ms=5),
        11: request(11, batch(plain, queries=VectorBlock(count=0))),
        12: request(12, batch(plain, queries=VectorBlock(float32_le=b"\0" * 128 * 1_025, count=1_025))),
        13: request(13, batch(plain, queries=VectorBlock(float32_le=b"\0" * 130, count=1))),
    }
    invalid = ("INVALID_ARGUMENT", "INVALID_REQUEST")
    expected = {
        **dict.fromkeys(bad, invalid),
        1: ("INVALID_ARGUMENT", "WRONG_DIMENSION"),
        5: ("FAILED_PRECONDITION", "UNKNOWN_RELEASE"),
        6: ("UNIMPLEMENTED", "NOT_SUPPORTED"),
        10: ("UNIMPLEMENTED", "NOT_SUPPORTED"),
    }
    call = open_stream(plain)
    for each in bad.values():
        await call.write(each)
    await call.write(request(9, good))
    answers = {answer.batch_id: answer for answer in await finish(call)}
    assert 10 == len(answers.pop(9).batch.items.integers)
    assert expected == {place: failed_as(answer)[1:] for place, answer in answers.items()}
    assert all(answer.failure.message for answer in answers.values())


async def test_a_repeated_id_in_flight_is_refused(whole: Served) -> None:
    """The second batch of an id in flight fails, the first is answered; then the id is free again."""
    call = open_stream(whole)
    with whole.frozen(*NODES):
        await call.write(request(5, batch(whole, rows=3)))
        await call.write(request(5, batch(whole)))
        refused = await read(call)
        assert (5, "INVALID_ARGUMENT", "INVALID_REQUEST") == failed_as(refused)
    first = await read(call)
    assert (5, [10, 10, 10]) == (first.batch_id, list(first.batch.item_counts))
    for _ in range(100):  # As soon as an answer is there.
        await call.write(request(5, batch(whole)))
        again = await read(call)
        assert (5, [10]) == (again.batch_id, list(again.batch.item_counts))
    assert [] == await finish(call)


async def test_a_cancelled_batch_gets_no_answer(whole: Served) -> None:
    """What is cancelled before its answer gets none; what was answered or never was may be, too."""
    call = open_stream(whole)
    await call.write(request(1, batch(whole)))
    assert 1 == (await read(call)).batch_id
    with whole.frozen(*NODES):
        await call.write(request(7, batch(whole)))
        await call.write(request(8, batch(whole)))
        for batch_id in (1, 7, 99):
            await call.write(RetrieveStreamRequest(batch_id=batch_id, cancel=True))
        await call.write(faulty(9))
        assert 9 == (await read(call)).batch_id
    await call.write(request(10, batch(whole)))
    assert {8, 10} == {answer.batch_id for answer in await finish(call)}


@pytest.mark.parametrize("count", [IN_FLIGHT_MAX - 1, IN_FLIGHT_MAX])
async def test_at_most_64_batches_are_in_flight(whole: Served, count: int) -> None:
    """With 63 batches unanswered the next is read, and fails; with 64 it waits until one is done."""
    call = open_stream(whole)
    with whole.frozen(*NODES):
        for batch_id in range(1, count + 1):
            await call.write(request(batch_id, batch(whole), time_allowed_ms=1_000))
        await call.write(faulty(1_000))
        first = await read(call)
        assert (count < IN_FLIGHT_MAX) == (1_000 == first.batch_id)
        others = await finish(call)
    expected = {*range(1, count + 1), 1_000}
    assert expected == {each.batch_id for each in (first, *others)}


async def test_a_client_that_does_not_read_is_held(plain: Served) -> None:
    """Its batches stay with it, the router's memory is bounded, others are served; then it gets all."""
    count, excluded = 400, ItemIds(integers=range(10**6, 10**6 + 2_000))
    large = batch(plain, rows=10, item_count=1_000, excluded_items=[excluded] * 10)  # 160 kB.
    router = psutil.Process(plain.cluster.pid("router-0"))
    bytes_before, written = router.memory_info().rss, 0
    call = open_stream(plain)

    async def write() -> None:
        nonlocal written
        for batch_id in range(1, count + 1):
            await call.write(request(batch_id, large))
            written = batch_id
        await call.done_writing()

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(write(), name="write")
        progress = -1
        while progress < written:  # Until a second goes by without one more write.
            progress = written
            await asyncio.wait((writing,), timeout=1)
        assert written < count
        assert router.memory_info().rss - bytes_before < 200 << 20
        other = await plain.client.retrieve(plain.catalogue.queries[0], minimum_coverage=1.0)
        assert 100 == len(other.ids)
        answers = await rest_of(call)
    assert set(range(1, count + 1)) == {answer.batch_id for answer in answers}
    assert {10_000} == {len(answer.batch.scores) for answer in answers}
    assert router.memory_info().rss - bytes_before < 200 << 20


async def test_a_thousand_streams_harm_nobody(whole: Served) -> None:
    """Those beyond 256 are refused with OVERLOADED; the first go on, and calls are not held up."""
    memory = psutil.Process(whole.cluster.pid("router-0")).memory_info
    before = memory().rss
    calls = [open_stream(whole) for _ in range(1_000)]
    refused = await asyncio.gather(*(failure_of(call.read()) for call in calls[STREAMS_MAX:]))
    assert {("RESOURCE_EXHAUSTED", "OVERLOADED")} == {(each.code, each.reason) for each in refused}
    single = await whole.client.retrieve(whole.catalogue.queries[0], minimum_coverage=1.0)
    assert 100 == len(single.ids)
    for call in calls[:STREAMS_MAX]:
        await call.write(request(1, batch(whole)))
    answers = [await finish(call) for call in calls[:STREAMS_MAX]]
    assert [[1]] * STREAMS_MAX == [[each.batch_id for each in own] for own in answers]
    assert memory().rss - before < 64 << 20


async def test_clients_that_leave_harm_nobody(plain: Served) -> None:
    """Streams that are cut with answers under way leave the router as it was."""
    for _ in range(5):
        call = open_stream(plain)
        for batch_id in range(1, 30):
            await call.write(request(batch_id, batch(plain, rows=10, item_count=1_000)))
        await read(call)
        call.cancel()
    async with grpc.aio.insecure_channel(plain.cluster.address) as channel:
        gone: Any = channel.stream_stream(f"/{STREAM}")(timeout=10)
        for batch_id in range(1, 30):
            content = request(batch_id, batch(plain, rows=10, item_count=1_000)).SerializeToString()
            await gone.write(content)
        await gone.read()
    other = await plain.client.retrieve(plain.catalogue.queries[0], minimum_coverage=1.0)
    assert 100 == len(other.ids)
    assert [] == plain.tracebacks()


async def test_a_draining_router_answers_what_it_has_read(whole: Served) -> None:
    """On SIGTERM a stream is told, every batch read is answered, later ones are not, and OK ends it."""
    call = open_stream(whole)
    with whole.frozen(*NODES):
        for batch_id in range(1, 6):
            await call.write(request(batch_id, batch(whole, minimum_coverage=1.0)))
        await call.write(faulty(6))
        assert 6 == (await read(call)).batch_id
        whole.cluster.signal("router-0", signal.SIGTERM)
        farewell = await read(call)
        assert ("draining", True, 0) == (
            farewell.WhichOneof("outcome"),
            farewell.draining,
            farewell.batch_id,
        )
        await call.write(request(7, batch(whole)))
    answers = await rest_of(call)
    assert {1, 2, 3, 4, 5} == {answer.batch_id for answer in answers}
    assert {10} == {len(answer.batch.items.integers) for answer in answers}
    await whole.until_whole()  # Whoever watches over it has started it again.
