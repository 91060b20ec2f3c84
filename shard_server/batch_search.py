"""One batch of queries over all shards of a node, on its threads."""

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

# Fewer queries than this are not worth a thread of their own.
_QUERIES_PER_PART_MIN = 4


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """The best items of every shard that answered, merged, and why others did not."""

    hits: Hits
    missed: dict[str, str]  # Reason by shard.


async def search_batch(node: Node, names: Sequence[str], search: Search) -> BatchOutcome:
    """Search the shards of these names. One that cannot answer costs its range, not the batch."""
    shards = node.ready_shards(names)
    missed = {name: NotReady.reason for name, shard in shards.items() if shard is None}
    outcomes = await asyncio.gather(
        *(_search_shard(node, shard, search, len(shards)) for shard in shards.values() if shard)
    )
    found = []
    for name, hits in outcomes:
        if hits is None:
            missed[name] = DeadlineSpent.reason
        else:
            found.append(hits)
    merged = merge_hits(found, search.wanted) if found else no_hits(len(search.queries))
    return BatchOutcome(merged, missed)


async def _search_shard(
    node: Node, shard: Shard, search: Search, shard_count: int
) -> tuple[str, Hits | None]:
    """Hits of one shard; None where the deadline came first."""
    began_s = time.monotonic()
    parts = list(_parts(search, node.thread_count // shard_count))
    try:
        found = await asyncio.gather(*(node.on_thread(partial(shard.search, part)) for part in parts))
    except DeadlineSpent:
        return shard.name, None
    now_s = time.monotonic()
    node.replicas[shard.name].durations.record(now_s, now_s - began_s, len(search.queries))
    return shard.name, stack_hits(found)


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
