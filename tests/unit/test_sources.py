"""Sources asked at once: what each failure costs, and that none holds up the others."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from unittest.mock import patch

import numpy as np
import pytest

from rangefinder.deadline import Deadline
from rangefinder.errors import DeadlineSpent, Overloaded, RangefinderError
from rangefinder.item_tables import ItemTables
from rangefinder.merge import Hits
from rangefinder.v1.recommendation_pb2 import RecommendRequest
from rangefinder.v1.types_pb2 import Vector
from router import sources
from router.batch import BlockOutcome, QueryBlock
from router.coverage import ShardResult
from router.gatherer import Gatherer
from router.pipeline import IndexSource, ItemToItemSource, Pipeline
from router.recommend_requests import Wish, wish_of
from router.sources import Found, Sources
from router.tables import ReleaseTables, Taste
from tests.unit.asked import MAP

ITEM_COUNT = 40


def tables() -> ReleaseTables:
    """Items of keys 0 to 39; the next one is similar to each, the last ones are popular."""
    places = np.arange(ITEM_COUNT)
    return ReleaseTables(
        items=ItemTables(
            keys=places.astype(np.uint64),
            texts=None,
            feature_names=(),
            features=np.empty((ITEM_COUNT, 0), np.float32),
            neighbours=((places + 1) % ITEM_COUNT).astype(np.int32)[:, None],
            neighbour_scores=np.ones((ITEM_COUNT, 1), np.float32),
            popular=places[::-1][:10].astype(np.int32),
            popular_scores=np.arange(10, 0, -1).astype(np.float32),
        )
    )


class FakeGatherer:
    """An index that finds keys 3 and 5, or fails."""

    def __init__(self, error: RangefinderError | None = None, missed: str = "") -> None:
        self.error, self.missed = error, missed
        self.blocks: list[QueryBlock] = []

    def begin(self, block: QueryBlock) -> "asyncio.Future[BlockOutcome]":
        self.blocks.append(block)
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(self._outcome())
        return answer

    def leave(self, searching: "asyncio.Future[BlockOutcome]") -> None:
        """Nobody waits any more."""
        searching.cancel()

    def _outcome(self) -> BlockOutcome:
        if self.error is not None:
            raise self.error
        keys = np.array([[] if self.missed else [3, 5]], np.uint64)
        return BlockOutcome(
            hits=Hits(keys, np.ones(keys.shape, np.float32)),
            texts={},
            results={"s-0": ShardResult(None if self.missed else ITEM_COUNT, self.missed)},
            queue_s=0.0,
            retrieval_s=0.0,
            merge_s=0.0,
        )


def wish(pipeline: Pipeline | None = None, **fields: object) -> Wish:
    request = RecommendRequest(user_embedding=Vector(values=[1, 2, 3]), **fields)  # type: ignore[arg-type]
    return wish_of(request, MAP, {"default": pipeline or Pipeline()})


def taste(seeds: int = 4, excluded: tuple[int, ...] = ()) -> Taste:
    keys = np.array(excluded, np.uint64)
    return Taste(
        is_known=True,
        embedding=np.ones((1, 3), np.float32),
        seeds=np.arange(seeds),
        excluded=keys,
        excluded_places=keys.astype(np.int64),
    )


async def found(
    gatherer: FakeGatherer,
    *,
    allowed_s: float = 20.0,
    wanted: Wish | None = None,
    of: Taste | None = None,
) -> Found:
    asked = Sources(MAP, cast(Gatherer, gatherer))
    try:
        deadline = Deadline.after(allowed_s, time.monotonic)
        return await asked.ask(wanted or wish(), of or taste(), tables(), deadline)
    finally:
        asked.close()


def keys(found: Found, source: str) -> list[int]:
    return [int(key) for key in found.parts[source].keys]


@contextmanager
def all_on_threads() -> Iterator[None]:
    with patch.object(sources, "_IDS_ON_LOOP_MAX", -1):
        yield


@contextmanager
def held_up(name: str) -> Iterator[None]:
    """A source whose tables are on a slow disk until the block ends."""
    gate, work = threading.Event(), getattr(ReleaseTables, name)

    def wait(*arguments: object) -> object:
        gate.wait(20)
        return work(*arguments)

    with all_on_threads(), patch.object(ReleaseTables, name, wait):
        try:
            yield
        finally:
            gate.set()


@pytest.mark.parametrize("where", [all_on_threads, lambda: patch.object(sources, "_THREADS", 1)])
async def test_every_source_proposes(where: Callable[[], object]) -> None:
    """Each what it finds, in its own order and with its weight, on a thread as on the loop."""
    with where():  # type: ignore[attr-defined]
        all_found = await found(FakeGatherer())
    assert [[3, 5], [1, 2, 3, 4], list(range(39, 29, -1))] == [
        keys(all_found, name) for name in ("index", "item_to_item", "popularity")
    ]
    assert [1.0, 1.0, 0.1] == [part.weight for part in all_found.parts.values()]
    assert {} == all_found.failures
    assert {"s-0": ShardResult(ITEM_COUNT)} == all_found.results


async def test_excluded_items_are_made_up_for_in_every_source() -> None:
    """The index is told of them; tables propose others in their place, as many as the quota."""
    gatherer = FakeGatherer()
    pipeline = Pipeline(item_to_item=ItemToItemSource(quota=2))
    wanted = wish(pipeline, item_count=2)
    some = await found(gatherer, wanted=wanted, of=taste(6, (1, 2, 38)))
    assert [3, 4] == keys(some, "item_to_item")
    assert [39, *range(37, 29, -1)] == keys(some, "popularity")
    (block,) = gatherer.blocks
    assert [[1, 2, 38]] == [each.tolist() for each in block.excluded]


@pytest.mark.parametrize("name", ["similar", "popular"])
async def test_a_late_table_costs_its_own_proposals(name: str) -> None:
    """A source that is held up is left when its part of the time is over; the others answer."""
    late = {"similar": "item_to_item", "popular": "popularity"}[name]
    with held_up(name):
        some = await found(FakeGatherer(), allowed_s=0.2)
    assert [late] == list(some.failures)
    assert isinstance(some.failures[late], DeadlineSpent)
    assert [] == keys(some, late)
    assert all(keys(some, other) for other in some.parts if other != late)


@pytest.mark.parametrize(
    "gatherer",
    [FakeGatherer(DeadlineSpent("late")), FakeGatherer(Overloaded("much")), FakeGatherer(missed="X")],
)
async def test_without_the_index_the_tables_answer(gatherer: FakeGatherer) -> None:
    """Its ranges are all missed, with the reason."""
    some = await found(gatherer)
    assert ["index"] == list(some.failures)
    assert some.results is not None
    reason = gatherer.error.reason if gatherer.error else "X"
    assert {reason} == {result.missed_reason for result in some.results.values()}
    assert [1, 2, 3, 4] == keys(some, "item_to_item")


async def test_each_source_has_its_part_of_the_time() -> None:
    """The index is given its share of what is left."""
    gatherer = FakeGatherer()
    pipeline = Pipeline(index=IndexSource(timeout_share=0.25))
    await found(gatherer, allowed_s=8.0, wanted=wish(pipeline))
    assert 1.5 < gatherer.blocks[0].deadline.remaining_s() <= 2.0


async def test_a_quota_of_none_is_not_asked() -> None:
    """Nor does it count as missed; any other quota is at least the items wanted."""
    gatherer = FakeGatherer()
    pipeline = Pipeline(index=IndexSource(quota=0))
    none = await found(gatherer, wanted=wish(pipeline))
    assert (None, [], []) == (none.results, keys(none, "index"), gatherer.blocks)
    await found(gatherer, wanted=wish(Pipeline(index=IndexSource(quota=1)), item_count=30))
    assert [30] == [block.item_count for block in gatherer.blocks]


async def test_an_item_that_a_source_should_have_left_out_is_left_out() -> None:
    """Exclusions hold after the merge, too, and what they take is made up for."""
    gatherer = FakeGatherer()
    asked = Sources(MAP, cast(Gatherer, gatherer))
    of, wanted = taste(4, (3,)), wish(item_count=6, candidate_count=6)
    deadline = Deadline.after(20, time.monotonic)
    some = await asked.ask(wanted, of, tables(), deadline)
    assert 3 in keys(some, "index")
    candidates, _ = await asked.merge(some, wanted, of, tables(), deadline)
    assert 6 == len(candidates.keys)
    assert 3 not in candidates.keys.tolist()
    asked.close()


async def test_the_loop_goes_on_while_tables_are_read() -> None:
    """What takes long is not on the loop: other tasks run meanwhile."""
    with held_up("similar"):
        asking = asyncio.create_task(found(FakeGatherer(), allowed_s=5.0), name="asking")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not asking.done()
    assert {} == (await asking).failures
