"""Queries on their way: blocks as they come, the batch that they travel in, what comes back."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rangefinder.deadline import Deadline
from rangefinder.errors import DeadlineSpent
from rangefinder.keys import Keys
from rangefinder.merge import Hits, merge_hits, no_hits
from router.attempts import Attempts
from router.coverage import ShardResult

# Items that the queries of a batch may want in all, be they of one request or of many: with the longest
# text ids a node's answer of so many is 54 MB, and a message between processes holds 64 MiB.
BATCH_ITEMS_MAX = 200_000


class Group(NamedTuple):
    """What queries of one batch have in common."""

    release: str
    width: int  # A step of the ladder; 0: the default.
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryBlock:
    """Queries of one request that travel together."""

    group: Group
    queries: npt.NDArray[np.float32]  # Shape (queries, dimension).
    item_count: int  # Wanted by each query.
    excluded: Sequence[Keys]  # Empty, or for each query.
    deadline: Deadline  # Of the retrieval: an answer later than this helps nobody.

    @property
    def items_wanted(self) -> int:
        """By all of its queries."""
        return len(self.queries) * self.item_count


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockOutcome:
    """The merged answer to a block."""

    hits: Hits
    texts: Mapping[int, bytes]  # In a text cluster: the id of each key.
    results: Mapping[str, ShardResult]  # By shard: all of the map's.
    queue_s: float
    retrieval_s: float
    merge_s: float


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What one node found for a batch in its shards."""

    hits: Hits
    texts: Mapping[int, bytes]
    results: Mapping[str, ShardResult]
    queue_length: int
    node_s: float  # Between arrival and answer on the node.


@dataclass(slots=True)
class Waiting:
    """A block that waits for its answer."""

    block: QueryBlock
    arrived_s: float
    outcome: "asyncio.Future[BlockOutcome]"
    is_sent: bool = False
    first_row: int = 0  # In its batch.
    expiry: asyncio.TimerHandle | None = None  # While it is not sent.

    def rows_of(self, hits: Hits) -> Hits:
        """The hits of this block, of those of its batch."""
        return hits.rows(self.first_row, self.first_row + len(self.block.queries))

    def set_sent(self, first_row: int) -> None:
        """From now on its batch looks after its deadline."""
        self.is_sent, self.first_row = True, first_row
        if self.expiry is not None:
            self.expiry.cancel()


@dataclass(slots=True, eq=False)
class Batch:
    """Blocks of one group, sent to every node of the choice at once."""

    waiting: list[Waiting]
    content: bytes  # As a message to nodes.
    query_count: int
    sent_s: float
    ends_at_s: float  # The last of its deadlines.
    first_end_s: float  # The first of them: by it others are asked, so that it can be met.
    attempts: Attempts = field(default_factory=Attempts)
    search_ids: dict[int, int] = field(default_factory=dict)  # By number of the attempt, as below.
    timers: dict[int, asyncio.TimerHandle] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)  # Those whose silence was counted.
    answers: list[NodeAnswer] = field(default_factory=list)
    results: dict[str, ShardResult] = field(default_factory=dict)
    late: asyncio.TimerHandle | None = None
    expiry: asyncio.TimerHandle | None = None
    is_resolved: bool = False

    @property
    def wanted(self) -> npt.NDArray[np.int64]:
        """Items wanted by each query of the batch."""
        if len(self.waiting) == 1:
            block = self.waiting[0].block
            return np.full(len(block.queries), block.item_count)
        counts = [each.block.item_count for each in self.waiting]
        return np.repeat(counts, [len(each.block.queries) for each in self.waiting])

    def is_answered_by(self, number: int, answer: NodeAnswer) -> bool:
        """Whether it is about all queries of the batch, and the shards that were asked for."""
        asked = self.attempts[number].shards
        return len(answer.hits.keys) == self.query_count and answer.results.keys() == set(asked)

    def record(self, results: Mapping[str, ShardResult]) -> None:
        """What became of some shards. What was searched stays so, whatever comes later."""
        for name, result in results.items():
            known = self.results.get(name)
            if known is None or known.missed_reason:
                self.results[name] = result

    def merged(self) -> tuple[Hits, Mapping[int, bytes]]:
        """The best of all answers there are, for every query of the batch."""
        texts: dict[int, bytes] = {}
        for answer in self.answers:
            texts |= answer.texts
        if not self.answers:
            return no_hits(self.query_count), texts
        return merge_hits([answer.hits for answer in self.answers], self.wanted), texts

    def all_results(self) -> Mapping[str, ShardResult]:
        """What became of every shard, as far as is known now."""
        owed = [name for number in self.attempts.under_way for name in self.attempts.owed(number)]
        if not owed:
            return self.results
        return self.results | dict.fromkeys(owed, ShardResult(None, DeadlineSpent.reason))

    def cancel_timers(self) -> None:
        """It is over."""
        for timer in (self.late, self.expiry, *self.timers.values()):
            if timer is not None:
                timer.cancel()
