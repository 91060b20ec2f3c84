"""One batch of queries over all shards of a node: on its threads, small ones where they arrive."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from rangefinder.errors import DeadlineSpent, NotReady
from rangefinder.merge import NO_SCORE, Hits, merge_hits, no_hits
from shard_server.node import Node
from shard_server.segment import Search
from shard_server.shard import Shard

# What an idle node searches on its loop: a few hundred microseconds. More goes to the threads, and so
# does everything while they have work.
_SMALL_QUERIES_MAX, _SMALL_EFFORT_MAX = 4, 160

# Fewer queries than this are not worth a thread of their own.
_QUERIES_PER_PART_MIN = 4


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """The best items of every shard that answered, merged, and why others did not."""

    hits: Hits
    missed: dict[str, str]  # Reason by shard.


def search_at_once(node: Node, names: Sequence[str], search: Search) -> BatchOutcome | None:
    """Search on the loop's own thread; None for all but small searches, which are for the threads."""
    if not node.is_idle or len(search.queries) > _SMALL_QUERIES_MAX:
        return None
    ready, missed = _ready_shards(node, names)
    if sum(shard.effort(search) for shard in ready) > _SMALL_EFFORT_MAX:
        return None
    began_s = time.monotonic()
    found = []
    for shard in ready:
        try:
            found.append(shard.search(search))
            _record(node, shard, search, began_s)
        except DeadlineSpent as error:
            missed[shard.name] = error.reason
    return _merged(found, search, missed)


async def search_batch(node: Node, names: Sequence[str], search: Search) -> BatchOutcome:
    """Search on the threads. A shard that cannot answer costs its range, not the batch."""
    ready, missed = _ready_shards(node, names)
    began_s = time.monotonic()
    parts = list(_parts(search, node.thread_count // max(len(ready), 1)))
    # Futures of the threads, not tasks: a hop through the loop less for each.
    work = [node.on_thread(partial(shard.search, part)) for shard in ready for part in parts]
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    found = []
    for place, shard in enumerate(ready):
        own = outcomes[place * len(parts) : (place + 1) * len(parts)]
        hits = [each for each in own if isinstance(each, Hits)]
        if len(hits) < len(own):
            _raise_unless_late(own)
            missed[shard.name] = DeadlineSpent.reason
            continue
        _record(node, shard, search, began_s)
        found.append(stack_hits(hits))
    return _merged(found, search, missed)


def _ready_shards(node: Node, names: Sequence[str]) -> tuple[list[Shard], dict[str, str]]:
    """Those that may answer, and the reason of those that may not."""
    ready: list[Shard] = []
    missed: dict[str, str] = {}
    for name, shard in node.ready_shards(names).items():
        if shard is None:
            missed[name] = NotReady.reason
        else:
            ready.append(shard)
    return ready, missed


def _record(node: Node, shard: Shard, search: Search, began_s: float) -> None:
    took_s = time.monotonic() - began_s
    node.replicas[shard.name].durations.record(began_s, took_s, len(search.queries))


def _merged(found: Sequence[Hits], search: Search, missed: dict[str, str]) -> BatchOutcome:
    merged = merge_hits(found, search.wanted) if found else no_hits(len(search.queries))
    return BatchOutcome(merged, missed)


def _raise_unless_late(outcomes: Sequence[Hits | BaseException]) -> None:
    """A passed deadline costs a shard; anything else is a bug."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, DeadlineSpent):
            raise outcome


def _parts(search: Search, count: int) -> Iterator[Search]:
    """The queries in parts for threads that would else be idle."""
    query_count = len(search.queries)
    count = max(min(count, query_count // _QUERIES_PER_PART_MIN), 1)
    if count == 1:
        yield search
        return
    for places in np.array_split(np.arange(query_count), count):
        yield search.part(places)


def stack_hits(parts: Sequence[Hits]) -> Hits:
    """Hits of consecutive queries as one, padded to the widest."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.keys.shape[1] for part in parts)
    rows = sum(len(part.keys) for part in parts)
    stacked = Hits(np.zeros((rows, width), np.uint64), np.full((rows, width), NO_SCORE))
    first = 0
    for part in parts:
        last = first + len(part.keys)
        stacked.keys[first:last, : part.keys.shape[1]] = part.keys
        stacked.scores[first:last, : part.keys.shape[1]] = part.scores
        first = last
    return stacked
