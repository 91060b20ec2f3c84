"""Nodes that answer when the test says so, in place of links to real ones.

The query whose first value is q finds one item in each shard n that answers: key 100 q + n, score -n.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from rangefinder.cluster_map import ClusterMap, Node, Release, Replica, Shard
from rangefinder.deadline import Clock, Deadline
from rangefinder.errors import RangefinderError
from rangefinder.internal.v1.node_pb2 import SearchBatch
from rangefinder.keys import IdKind
from rangefinder.merge import Hits
from rangefinder.metric import Metric
from router.batch import BlockOutcome, Group, NodeAnswer, QueryBlock
from router.coverage import ShardResult
from router.gatherer import Gatherer
from router.health import NodeHealth
from router.node_link import NodeLink, OnAnswer
from router.pace import NodePace

DEFAULT = Group("r-1", 0, False)
ITEMS_IN_SHARD = 7
GIVE_UP_S = 20.0

# Two shards on each of two nodes, in key order.
SHARDS_OF_NODE = {"a": ("s-0", "s-1"), "b": ("s-2", "s-3")}


@dataclass(frozen=True, slots=True)
class Sent:
    """A search as a node got it."""

    search_id: int
    batch: SearchBatch
    shards: tuple[str, ...]
    on_answer: OnAnswer

    @property
    def group(self) -> Group:
        return Group(self.batch.release, self.batch.search_width, self.batch.exact)

    @property
    def queries(self) -> list[int]:
        """The numbers of the queries."""
        rows = np.frombuffer(self.batch.queries, np.float32).reshape(self.batch.query_count, -1)
        return [int(query[0]) for query in rows]


class FakeNode:
    """What the gatherer sees of a node."""

    def __init__(self, name: str) -> None:
        self.name, self.health, self.pace = name, NodeHealth(), NodePace(time.monotonic())
        self.last_heard_s = 0.0
        self.is_open = True
        self.sent: asyncio.Queue[Sent] = asyncio.Queue()
        self.waiting: dict[int, Sent] = {}
        self.cancelled: list[int] = []
        self.next_id = 1

    @property
    def is_usable(self) -> bool:
        return self.is_open and not self.health.is_ejected

    @property
    def in_flight(self) -> int:
        return len(self.waiting)

    @property
    def last_alive_s(self) -> float:
        """It is asked for nothing but searches."""
        return self.last_heard_s

    def search(self, batch: bytes, shards: Sequence[str], on_answer: OnAnswer) -> int:
        sent = Sent(self.next_id, SearchBatch.FromString(batch), tuple(shards), on_answer)
        self.next_id += 1
        self.waiting[sent.search_id] = sent
        self.sent.put_nowait(sent)
        return sent.search_id

    async def next_sent(self) -> Sent:
        """The next search that this node gets; a test that waits in vain fails."""
        async with asyncio.timeout(GIVE_UP_S):
            return await self.sent.get()

    def cancel(self, search_id: int) -> None:
        if self.waiting.pop(search_id, None) is not None:
            self.cancelled.append(search_id)

    def answer(self, sent: Sent, missed: Mapping[str, str] | None = None) -> None:
        """Answer a search, but for the shards that were missed."""
        missed = missed or {}
        numbers = sorted(int(name[2:]) for name in sent.shards if name not in missed)
        queries = np.array(sent.queries, np.uint64)[:, None]
        keys = queries * np.uint64(100) + np.array(numbers, np.uint64)
        scores = np.tile(-np.array(numbers, np.float32), (len(keys), 1))
        results = {
            name: ShardResult(None if name in missed else ITEMS_IN_SHARD, missed.get(name, ""))
            for name in sent.shards
        }
        texts = {int(key): str(key).encode() for key in keys.ravel()}
        self.health.record_success()
        self._reply(sent, NodeAnswer(Hits(keys, scores), texts, results, 0, 0.0))

    def answer_wrongly(self, sent: Sent, *, rows: int, shards: Sequence[str]) -> None:
        """Answer another number of queries, or other shards."""
        hits = Hits(np.zeros((rows, 1), np.uint64), np.zeros((rows, 1), np.float32))
        results = {name: ShardResult(ITEMS_IN_SHARD) for name in shards}
        self._reply(sent, NodeAnswer(hits, {}, results, 0, 0.0))

    def fail(self, sent: Sent, error: RangefinderError) -> None:
        self._reply(sent, error)

    def _reply(self, sent: Sent, answer: NodeAnswer | RangefinderError) -> None:
        self.last_heard_s = time.monotonic()
        if self.waiting.pop(sent.search_id, None) is not None:
            sent.on_answer(answer)


class FakeCluster:
    """Two nodes, or three, and a gatherer that asks them."""

    def __init__(
        self, batch_rows_max: int = 100, *, is_replicated: bool = False, names: str = "ab"
    ) -> None:
        """is_replicated: every shard is on all nodes."""
        self.nodes = {name: FakeNode(name) for name in names}
        self.a, self.b = self.nodes["a"], self.nodes["b"]
        links = cast(dict[str, NodeLink], self.nodes)
        on_all = names if is_replicated else ""
        self.gatherer = Gatherer(cluster_map(on_all), links, batch_rows_max)

    @property
    def is_idle(self) -> bool:
        """Whether nothing of what was asked is kept anywhere."""
        of_gatherer = (self.gatherer._queue, self.gatherer._batches, self.gatherer._out)
        of_nodes = [node.waiting for node in self.nodes.values()]
        return not any((*of_gatherer, self.gatherer.waiting_rows, *of_nodes))

    def ask(
        self,
        *queries: int,
        group: Group = DEFAULT,
        item_count: int = 10,
        allowed_s: float = 30.0,
        clock: Clock = time.monotonic,
    ) -> "asyncio.Task[BlockOutcome]":
        """Send a block of queries, as a request does."""
        block = QueryBlock(
            group=group,
            queries=np.array([[query, 0] for query in queries], np.float32),
            item_count=item_count,
            excluded=(),
            deadline=Deadline.after(allowed_s, clock),
        )
        return asyncio.create_task(self.gatherer.search(block), name=f"ask-{queries}")

    async def answer_next(self) -> tuple[Sent, Sent]:
        """Both nodes answer what they get next; returns what that was."""
        await asyncio.sleep(0)  # What was asked before this arrives first.
        sent = await self.a.next_sent(), await self.b.next_sent()
        self.a.answer(sent[0])
        self.b.answer(sent[1])
        return sent


def cluster_map(on_all: str = "") -> ClusterMap:
    """on_all: names of nodes that hold every shard; else each is on one."""
    quarter = 2**62
    shards = [name for names in SHARDS_OF_NODE.values() for name in names]
    node_of = {shard: node for node, names in SHARDS_OF_NODE.items() for shard in names}
    return ClusterMap(
        epoch=6,
        cluster="test",
        id_kind=IdKind.INTEGER,
        active_release="r-1",
        shards=tuple(
            Shard(
                name=name,
                key_start=place * quarter,
                key_end=(place + 1) * quarter,
                replicas=tuple(Replica(node=node) for node in on_all or node_of[name]),
                item_count=1,
            )
            for place, name in enumerate(shards)
        ),
        nodes=tuple(Node(name=name, address=f"{name}:1") for name in on_all or "ab"),
        releases=(Release(name="r-1", dimension=2, metric=Metric.L2),),
    )


def found(outcome: BlockOutcome) -> list[list[int]]:
    """The keys of each query's hits, best first."""
    counts = outcome.hits.counts.tolist()
    return [keys[:count].tolist() for keys, count in zip(outcome.hits.keys, counts, strict=True)]


def reasons(outcome: BlockOutcome) -> dict[str, str]:
    """Why each shard was missed; empty where it was searched."""
    for result in outcome.results.values():
        assert (result.item_count is None) == bool(result.missed_reason)
    return {name: result.missed_reason for name, result in sorted(outcome.results.items())}


def whole(*queries: int) -> list[list[int]]:
    """The keys that queries find where all shards answer."""
    return [[100 * query + shard for shard in range(4)] for query in queries]
