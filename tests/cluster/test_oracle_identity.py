"""The same question gets the same answer, however it is asked: alone, among others, in a batch."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import grpc
import numpy as np
import pytest

from rangefinder.v1.recommendation_pb2 import (
    RetrieveBatchRequest,
    RetrieveBatchResponse,
    RetrieveRequest,
    RetrieveResponse,
    RetrieveStreamRequest,
)
from rangefinder.v1.types_pb2 import ItemIds, VectorBlock
from tests.kit.nasty_world import Catalogue, Rows
from tests.kit.served import DEADLINE_S, Served

METRICS = ("ip", "cosine", "l2")
SEED = 7
Answer = tuple[tuple[int | str, ...], bytes]  # Ids, and scores to the last bit.


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the queries of one batch have in common."""

    item_count: int
    width: int = 0
    exact: bool = False
    with_exclusions: bool = True
    query_count: int = 24


KINDS = (
    Kind(item_count=10),
    Kind(item_count=10, with_exclusions=False),
    Kind(item_count=10, width=10),
    Kind(item_count=10, width=11),  # One step of the ladder with the next:
    Kind(item_count=7, width=15),
    Kind(item_count=100, width=333),
    Kind(item_count=100, exact=True),
    Kind(item_count=1_000, query_count=8),
    Kind(item_count=1),
    Kind(item_count=7_000, query_count=2),  # Beyond the catalogue.
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Queries of one kind with what each of them excludes."""

    kind: Kind
    queries: Rows
    excluded: Sequence[ItemIds]

    def single(self, place: int) -> RetrieveRequest:
        request = RetrieveRequest(
            item_count=self.kind.item_count, search_width=self.kind.width, exact=self.kind.exact
        )
        request.query.values.extend(self.queries[place].tolist())
        if self.excluded:
            request.excluded_items.CopyFrom(self.excluded[place])
        return request

    def part(self, start: int, end: int) -> RetrieveBatchRequest:
        return RetrieveBatchRequest(
            queries=VectorBlock(float32_le=self.queries[start:end].tobytes(), count=end - start),
            item_count=self.kind.item_count,
            search_width=self.kind.width,
            exact=self.kind.exact,
            excluded_items=self.excluded[start:end],
        )

    def whole(self) -> RetrieveBatchRequest:
        return self.part(0, len(self.queries))


def batches_of(catalogue: Catalogue) -> list[Batch]:
    """A batch of every kind, of queries drawn anew."""
    random = np.random.default_rng(SEED)
    return [_batch(catalogue, kind, random) for kind in KINDS]


def _batch(catalogue: Catalogue, kind: Kind, random: np.random.Generator) -> Batch:
    rows = random.choice(len(catalogue.queries), kind.query_count, replace=False)
    excluded = [
        _ids(catalogue, random.choice(len(catalogue.ids), random.choice([0, 1, 30, 2_000])))
        for _ in rows
    ]
    return Batch(
        kind=kind,
        queries=catalogue.queries[rows],
        excluded=excluded if kind.with_exclusions else [],
    )


def _ids(catalogue: Catalogue, rows: Sequence[int]) -> ItemIds:
    ids = [catalogue.ids[row] for row in rows]
    if catalogue.id_kind == "text":
        return ItemIds(texts=[str(each) for each in ids])
    return ItemIds(integers=[int(each) for each in ids])


def answer_of(response: RetrieveResponse) -> Answer:
    ids: tuple[int | str, ...] = (*response.items.integers, *response.items.texts)
    return ids, np.array(response.scores, np.float32).tobytes()


def answers_of(response: RetrieveBatchResponse) -> list[Answer]:
    """One for each query."""
    ids: tuple[int | str, ...] = (*response.items.integers, *response.items.texts)
    scores = np.array(response.scores, np.float32)
    assert len(ids) == len(scores) == sum(response.item_counts)
    ends = [0, *np.cumsum(response.item_counts).tolist()]
    return [(ids[start:end], scores[start:end].tobytes()) for start, end in pairwise(ends)]


@pytest.fixture(scope="module", params=METRICS)
async def asked_alone(
    request: pytest.FixtureRequest, nasty: dict[str, Served]
) -> tuple[Served, list[Batch], list[list[Answer]]]:
    """A cluster, batches, and the answer to each of their queries when nothing else is asked."""
    served = nasty[request.param]
    batches = batches_of(served.catalogue)
    return served, batches, [await _alone(served, batch) for batch in batches]


async def _alone(served: Served, batch: Batch) -> list[Answer]:
    return [
        answer_of(await served.recommendations.Retrieve(batch.single(place), timeout=DEADLINE_S))
        for place in range(batch.kind.query_count)
    ]


AskedAlone = tuple[Served, list[Batch], list[list[Answer]]]


async def test_batches_answer_as_single_requests_do(asked_alone: AskedAlone) -> None:
    """RetrieveBatch gives each query the ids and scores that Retrieve gives it, one at a time."""
    served, batches, alone = asked_alone
    for batch, expected in zip(batches, alone, strict=True):
        response = await served.recommendations.RetrieveBatch(batch.whole(), timeout=DEADLINE_S)
        assert expected == answers_of(response), batch.kind


async def test_requests_at_once_are_gathered_and_answered_alike(asked_alone: AskedAlone) -> None:
    """Many requests in flight travel together, and change no answer, whatever their kinds."""
    served, batches, alone = asked_alone
    asked = [
        (batch.single(place), answer)
        for batch, answers in zip(batches, alone, strict=True)
        for place, answer in enumerate(answers)
    ]
    Random(SEED).shuffle(asked)
    responses = await asyncio.gather(
        *(served.recommendations.Retrieve(request, timeout=DEADLINE_S) for request, _ in asked)
    )
    assert [answer for _, answer in asked] == [answer_of(response) for response in responses]

    # What travelled together was searched for exactly as long.
    durations = [
        timing.duration_ms
        for response in responses
        for timing in response.certificate.stage_timings
        if timing.stage == "retrieval"
    ]
    assert len(responses) == len(durations)
    assert len(set(durations)) < len(durations) / 2


async def test_streams_answer_as_single_requests_do(asked_alone: AskedAlone) -> None:
    """RetrieveStream gives the same answers, to whole batches and to single rows, in any order."""
    served, batches, alone = asked_alone
    requests: list[RetrieveStreamRequest] = []
    expected: dict[int, list[Answer]] = {}
    for batch, answers in zip(batches, alone, strict=True):
        count = batch.kind.query_count
        cuts = [(0, count), *((place, place + 1) for place in range(count))]
        for start, end in cuts:
            request = RetrieveStreamRequest(
                batch_id=len(requests) + 1,
                batch=batch.part(start, end),
                time_allowed_ms=int(DEADLINE_S * 1000),
            )
            requests.append(request)
            expected[request.batch_id] = answers[start:end]

    async def sent() -> AsyncIterator[RetrieveStreamRequest]:
        for request in requests:
            yield request

    call = served.recommendations.RetrieveStream(sent(), timeout=60)
    received = {response.batch_id: answers_of(response.batch) async for response in call}
    assert grpc.StatusCode.OK is await call.code()
    assert expected == received


@pytest.mark.parametrize("metric", METRICS)
async def test_a_batch_of_1024_rows_answers_as_its_parts_do(
    nasty: dict[str, Served], metric: str
) -> None:
    """The largest batch, which a router cuts into several, is answered as row after row."""
    served = nasty[metric]
    queries = np.resize(served.catalogue.queries, (1_024, served.catalogue.queries.shape[1]))
    request = RetrieveBatchRequest(
        queries=VectorBlock(float32_le=queries.tobytes(), count=1_024), item_count=15
    )
    response = await served.recommendations.RetrieveBatch(request, timeout=DEADLINE_S)
    answers = answers_of(response)
    assert 1_024 == len(answers)
    for place in (0, 255, 256, 700, 1_023):
        single = RetrieveRequest(item_count=15)
        single.query.values.extend(queries[place].tolist())
        alone = await served.recommendations.Retrieve(single, timeout=DEADLINE_S)
        assert answer_of(alone) == answers[place], f"row {place}"
