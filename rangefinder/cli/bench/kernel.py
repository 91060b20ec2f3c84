"""The yardstick of CPU: the same indexes searched in memory, without any network.

Twice: the index alone, which finds candidates; and as a node does it, with the score of every candidate
computed from its row and the shards merged.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rangefinder.release import read_manifest
from shard_server.scoring import Rows
from shard_server.segment import Search
from shard_server.shard import Shard, search_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelOrder:
    """What one process searches, and for how long."""

    release: Path
    queries: Rows
    queries_at_once: int
    item_count: int
    width: int
    begin_s: float  # Of the monotonic clock, which all processes share.
    seconds: float
    is_index_alone: bool


class KernelWork(NamedTuple):
    """What one process did."""

    queries: int
    cpu_s: float
    took_s: float


def search_in_memory(order: KernelOrder) -> KernelWork:
    """In a worker: search batch after batch, on this thread alone."""
    search = _index_alone(order) if order.is_index_alone else _as_a_node(order)
    batches = cycle(list(_batches(order)))
    search(next(batches))  # Pages are mapped and caches warm, as in a node that serves.
    time.sleep(max(order.begin_s - time.monotonic(), 0))
    began_s, cpu_s, queries = time.monotonic(), time.thread_time(), 0
    while time.monotonic() < began_s + order.seconds:
        batch = next(batches)
        search(batch)
        queries += len(batch)
    return KernelWork(queries, time.thread_time() - cpu_s, time.monotonic() - began_s)


def _index_alone(order: KernelOrder) -> Callable[[Rows], object]:
    segments = [segment for shard in _shards(order.release) for segment in shard.segments]
    indexes = [segment.index for segment in segments]

    def search(batch: Rows) -> None:
        for index in indexes:
            if index is not None:
                index.search(batch, order.width)

    # A segment too small for an index has nothing but its rows.
    return _as_a_node(order) if None in indexes else search


def _as_a_node(order: KernelOrder) -> Callable[[Rows], object]:
    shards = _shards(order.release)

    def search(batch: Rows) -> None:
        wanted = np.full(len(batch), order.item_count)
        search_shards(shards, Search(queries=batch, wanted=wanted, width=order.width))

    return search


def _batches(order: KernelOrder) -> Iterator[Rows]:
    size = order.queries_at_once
    for start in range(0, len(order.queries), size):
        yield np.take(order.queries, range(start, start + size), 0, mode="wrap")


def load_shards(release: Path) -> None:
    """In a worker: load what will be searched. Raises ReleaseDamaged."""
    _shards(release)


@cache
def _shards(release: Path) -> list[Shard]:
    """Loaded once, whatever is asked of the process after it."""
    manifest = read_manifest(release)
    return [Shard.open(release, manifest, about) for about in manifest.shards]
