"""The sources of a recommendation, asked at once, each with its part of the deadline.

One that fails or is late proposes nothing and is named; the others answer without it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from rangefinder.candidates import Candidates, Proposals, merge_candidates, similar_effort
from rangefinder.cluster_map import ClusterMap
from rangefinder.deadline import Deadline
from rangefinder.errors import DeadlineSpent, RangefinderError, ReplicaUnavailable
from router.batch import BlockOutcome, Group, QueryBlock
from router.coverage import ShardResult
from router.gatherer import Gatherer
from router.pipeline import Source
from router.recommend_requests import Wish
from router.tables import ReleaseTables, Taste

T = TypeVar("T")

# Two threads keep a slow disk from holding up everyone.
_THREADS = 2

# Work on so many ids takes about as long as handing it to a thread and back.
_IDS_ON_LOOP_MAX = 1_500


@dataclass(slots=True, kw_only=True)
class Found:
    """What the sources proposed, and what became of them."""

    parts: dict[str, Proposals]  # Of every source of the pipeline; empty where it proposed nothing.
    failures: dict[str, RangefinderError] = field(default_factory=dict)  # In the order they happened.
    texts: Mapping[int, bytes] = field(default_factory=dict)  # Of the index's hits, by key.
    results: Mapping[str, ShardResult] | None = None  # Of the index; None: it was not asked.
    queue_s: float = 0.0
    retrieval_s: float = 0.0
    merge_s: float = 0.0


class Sources:
    """Asks the index through the gatherer, and tables on threads of its own."""

    def __init__(self, cluster_map: ClusterMap, gatherer: Gatherer) -> None:
        self._map, self._gatherer = cluster_map, gatherer
        self._threads = ThreadPoolExecutor(_THREADS, "tables")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def taste(self, wish: Wish, tables: ReleaseTables, deadline: Deadline) -> Taste:
        """What is known of who asks. Raises DeadlineSpent."""
        user = tables.user(wish.user_id)
        size = len(wish.recent) + len(wish.excluded)
        if user is not None and wish.exclude_seen:
            size += len(user.history)
        work = partial(tables.taste, wish, user)
        if size <= _IDS_ON_LOOP_MAX:
            return work()
        return await _done(self._start(work), deadline, "the user was not looked up in time")

    async def ask(self, wish: Wish, taste: Taste, tables: ReleaseTables, deadline: Deadline) -> Found:
        """Ask every source that has something to go by."""
        began_s, pipeline = time.monotonic(), wish.pipeline
        found = Found(parts={source.name: _nothing(source) for source in pipeline.sources})
        searching = self._begin_search(found, wish, taste, deadline)
        try:
            # Nodes search while tables are looked at here.
            await self._look_into_tables(found, wish, taste, tables, deadline)
            if searching is not None:
                await self._take_search(found, pipeline.index, searching)
        finally:
            if searching is not None:
                self._gatherer.leave(searching)
        found.retrieval_s = time.monotonic() - began_s - found.queue_s - found.merge_s
        return found

    async def _look_into_tables(
        self, found: Found, wish: Wish, taste: Taste, tables: ReleaseTables, deadline: Deadline
    ) -> None:
        """Fill in what the sources besides the index propose, or why they do not."""
        working = []
        for source, size, work in _table_work(wish, taste, tables):
            if size <= _IDS_ON_LOOP_MAX:
                found.parts[source.name] = work()
            else:
                working.append((source, self._start(work), _part(source, deadline)))
        for source, future, until in working:
            try:
                found.parts[source.name] = await _done(future, until, "its part of the time is over")
            except DeadlineSpent as error:
                found.failures[source.name] = error

    def _begin_search(
        self, found: Found, wish: Wish, taste: Taste, deadline: Deadline
    ) -> "asyncio.Future[BlockOutcome] | None":
        """Ask the index, where it is to be asked and can be."""
        source = wish.pipeline.index
        if taste.embedding is None or not source.quota:
            return None
        block = QueryBlock(
            group=Group(wish.release.name, 0, False),
            queries=taste.embedding,
            item_count=_quota(source, wish),
            excluded=(taste.excluded,) if len(taste.excluded) else (),
            deadline=_part(source, deadline),
        )
        try:
            return self._gatherer.begin(block)
        except RangefinderError as error:
            self._fail_search(found, source, error)
            return None

    def _fail_search(self, found: Found, source: Source, error: RangefinderError) -> None:
        found.failures[source.name] = error
        missed = ShardResult(None, error.reason)
        found.results = {shard.name: missed for shard in self._map.serving_shards}

    async def _take_search(
        self, found: Found, source: Source, searching: "asyncio.Future[BlockOutcome]"
    ) -> None:
        """Fill in what the index found, or why it found nothing."""
        try:
            outcome = await searching
        except RangefinderError as error:
            self._fail_search(found, source, error)
            return
        found.parts[source.name] = _proposals(outcome, source)
        found.texts, found.results = outcome.texts, outcome.results
        found.queue_s, found.merge_s = outcome.queue_s, outcome.merge_s
        reasons = [result.missed_reason for result in outcome.results.values()]
        if reasons and all(reasons):
            kind = RangefinderError.by_reason.get(reasons[0], ReplicaUnavailable)
            found.failures[source.name] = kind("no range of the catalogue was searched")

    async def merge(
        self, found: Found, wish: Wish, taste: Taste, tables: ReleaseTables, deadline: Deadline
    ) -> tuple[Candidates, dict[int, bytes]]:
        """The candidates, and, in a text cluster, their ids by key. Raises DeadlineSpent."""
        is_text = not self._map.id_kind.is_integer
        parts = list(found.parts.values())
        work = partial(_merge, parts, wish.candidate_count, taste, tables, found.texts, is_text)
        if sum(len(part.keys) for part in parts) <= _IDS_ON_LOOP_MAX:
            return work()
        return await _done(self._start(work), deadline, "candidates were not merged in time")

    def _start(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._threads, work)


def _table_work(
    wish: Wish, taste: Taste, tables: ReleaseTables
) -> Iterator[tuple[Source, int, Callable[[], Proposals]]]:
    """What is asked of the tables: by which source, how long that takes as a number of ids, and how."""
    similar, popular = wish.pipeline.item_to_item, wish.pipeline.popularity
    if tables.items is not None and len(taste.seeds) and similar.quota:
        place_count, neighbour_count = tables.items.neighbours.shape
        effort = similar_effort(place_count, len(taste.seeds) * neighbour_count)
        size = effort + len(taste.excluded)
        yield similar, size, partial(tables.similar, taste, similar, _quota(similar, wish))
    if tables.has_popular and popular.quota:
        size = _quota(popular, wish) + len(taste.excluded)
        yield popular, size, partial(tables.popular, taste, popular, _quota(popular, wish))


def _merge(
    parts: list[Proposals],
    count: int,
    taste: Taste,
    tables: ReleaseTables,
    texts: Mapping[int, bytes],
    is_text: bool,
) -> tuple[Candidates, dict[int, bytes]]:
    # Each source has obeyed what is excluded; that none forgets is worth a second look.
    candidates = merge_candidates(parts, count, taste.excluded)
    return candidates, tables.texts_of(candidates.keys, texts) if is_text else {}


def _proposals(outcome: BlockOutcome, source: Source) -> Proposals:
    count = int(outcome.hits.counts[0])
    return Proposals(
        source.name, outcome.hits.keys[0, :count], outcome.hits.scores[0, :count], source.weight
    )


def _nothing(source: Source) -> Proposals:
    return Proposals(source.name, np.empty(0, np.uint64), np.empty(0, np.float32), source.weight)


def _quota(source: Source, wish: Wish) -> int:
    """Never fewer than the items wanted: any one source may be the only one with an answer."""
    return max(source.quota, wish.item_count)


def _part(source: Source, deadline: Deadline) -> Deadline:
    """When a source is late: its share of what is left now."""
    left_s = deadline.remaining_s()
    return Deadline(deadline.ends_at_s - left_s * (1 - source.timeout_share), deadline.clock)


async def _done(future: "asyncio.Future[T]", deadline: Deadline, why: str) -> T:
    """What a thread returns. Raises DeadlineSpent; work that was not begun is dropped."""
    if not future.done():
        await asyncio.wait((future,), timeout=deadline.remaining_s())
    if not future.done():
        future.cancel()
        raise DeadlineSpent(why)
    return future.result()
