"""One gatherer for the whole fan-out: while a batch is out, arriving queries wait for the next.

More than one is out only where that helps (router/window.py). An idle router sends at once; nothing
waits for a timer. A batch that a node keeps for unusually long no longer holds up the next one: a slow
or frozen node costs its own ranges, not everybody's time. Queries of a batch keep their own deadlines:
each is answered, with what there is by then.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping
from functools import partial

from rangefinder.cluster_map import ClusterMap
from rangefinder.errors import DeadlineSpent, Overloaded, RangefinderError, ReplicaUnavailable
from router.batch import BATCH_ITEMS_MAX, Batch, BlockOutcome, NodeAnswer, QueryBlock, Waiting
from router.batch_message import batch_content
from router.choice import choose
from router.coverage import ShardResult
from router.health import SILENCE_S
from router.node_link import NodeLink
from router.window import Window

# When a batch counts as late: so many times the usual, within these bounds.
_LATE_FACTOR = 4.0
_LATE_S_MIN, _LATE_S_MAX = 0.01, 0.1
_USUAL_SMOOTHING = 0.1

_WAITING_ROWS_MAX = 10_000


class Gatherer:
    """Sends blocks of queries to the nodes in batches and merges what comes back."""

    def __init__(
        self, cluster_map: ClusterMap, links: Mapping[str, NodeLink], batch_rows_max: int
    ) -> None:
        self._shards, self._epoch = cluster_map.serving_shards, cluster_map.epoch
        self._links, self._rows_max = links, batch_rows_max
        self._queue: deque[Waiting] = deque()
        self.waiting_rows = 0
        self._out: set[int] = set()
        self._batches: dict[int, Batch] = {}
        self._next_id = 1
        self._window = Window(time.monotonic(), time.process_time())
        self._usual_s = 0.005
        self._asked_s: dict[str, float] = {}  # When each node was first asked since it was heard of.
        self._random = random.Random()
        self.last_counts: dict[str, int] = {}

    async def search(self, block: QueryBlock) -> BlockOutcome:
        """Answer a block by its deadline with what there is. Raises Overloaded, DeadlineSpent."""
        block.deadline.require_time_left()
        if self.waiting_rows + len(block.queries) > _WAITING_ROWS_MAX:
            raise Overloaded(f"{_WAITING_ROWS_MAX} queries wait for a node: come back later")
        loop = asyncio.get_running_loop()
        waiting = Waiting(block, time.monotonic(), loop.create_future())
        self._queue.append(waiting)
        self.waiting_rows += len(block.queries)
        self._send_next()
        if not waiting.is_sent:
            left_s = block.deadline.remaining_s()
            waiting.expiry = loop.call_later(left_s, _expire, waiting)
            self._watch_late()
        return await waiting.outcome

    def _send_next(self) -> None:
        """Send what waits, as long as fewer batches are out than may be."""
        while self._queue and len(self._out) < self._window.size:
            waiting = self._take()
            if waiting:
                self._send(waiting)

    def _take(self) -> list[Waiting]:
        """Blocks of the group that waits longest, as many as fit into a batch."""
        group = self._queue[0].block.group
        taken: list[Waiting] = []
        left: deque[Waiting] = deque()
        rows = items = 0
        for waiting in self._queue:
            block = waiting.block
            fits = rows + len(block.queries) <= self._rows_max
            fits = fits and items + block.items_wanted <= BATCH_ITEMS_MAX
            if block.group != group or (rows and not fits):
                left.append(waiting)
                continue
            self.waiting_rows -= len(block.queries)
            if waiting.outcome.done():
                continue  # Its caller is gone.
            if block.deadline.is_spent():
                _expire(waiting)
                continue
            waiting.set_sent(rows)
            rows += len(block.queries)
            items += block.items_wanted
            taken.append(waiting)
        self._queue = left
        return taken

    def _send(self, waiting: list[Waiting]) -> None:
        usable = {name: link.in_flight for name, link in self._links.items() if link.is_usable}
        numbers = [self._random.random() for _ in self._shards]
        choice = choose(self._shards, usable, numbers)
        missed = {name: ShardResult(None, ReplicaUnavailable.reason) for name in choice.unavailable}
        batch = Batch(waiting, choice.shards_of_node, missed, time.monotonic())
        if not choice.shards_of_node:
            self._resolve(batch, waiting)
            return
        number, self._next_id = self._next_id, self._next_id + 1
        self._batches[number] = batch
        content = batch_content(self._epoch, [each.block for each in waiting])
        for node, shards in choice.shards_of_node.items():
            if self._asked_s.get(node, 0.0) <= self._links[node].last_heard_s:
                self._asked_s[node] = batch.sent_s
            on_answer = partial(self._on_answer, number, node)
            batch.search_ids[node] = self._links[node].search(content, shards, on_answer)
        self._out.add(number)
        self._arm_expiry(number, batch)
        if self._queue:
            self._watch_late()

    def _on_answer(self, number: int, node: str, answer: NodeAnswer | RangefinderError) -> None:
        batch = self._batches.get(number)
        if batch is None:
            return  # Every caller has had an answer without it.
        batch.answers[node] = answer
        if isinstance(answer, NodeAnswer):
            self._window.record(queue_length=answer.queue_length, waiting_rows=self.waiting_rows)
            for shard, result in answer.results.items():
                if result.item_count is not None:
                    self.last_counts[shard] = result.item_count
        if not batch.unanswered:
            self._finish(number)

    def _watch_late(self) -> None:
        """Somebody waits: for the batches that are out no longer than until they are late."""
        loop, now_s = asyncio.get_running_loop(), time.monotonic()
        late_s = min(max(_LATE_FACTOR * self._usual_s, _LATE_S_MIN), _LATE_S_MAX)
        for number in self._out:
            batch = self._batches[number]
            if batch.late is None:
                left_s = max(batch.sent_s + late_s - now_s, 0.0)
                batch.late = loop.call_later(left_s, self._on_late, number)

    def _on_late(self, number: int) -> None:
        self._out.discard(number)
        self._send_next()

    def _arm_expiry(self, number: int, batch: Batch) -> None:
        loop = asyncio.get_running_loop()
        left_s = min(each.block.deadline.remaining_s() for each in batch.waiting)
        batch.expiry = loop.call_later(left_s, self._on_expiry, number)

    def _on_expiry(self, number: int) -> None:
        """Answer the blocks whose time is up with what there is; the others go on waiting."""
        batch, now_s = self._batches[number], time.monotonic()
        expired = [each for each in batch.waiting if each.block.deadline.is_spent()]
        self._resolve(batch, expired)
        self._record_silence(batch, now_s)
        if all(each.outcome.done() for each in batch.waiting):
            self._abandon(number)
        else:
            remaining = [each for each in batch.waiting if not each.outcome.done()]
            left_s = min(each.block.deadline.remaining_s() for each in remaining)
            loop = asyncio.get_running_loop()
            batch.expiry = loop.call_later(max(left_s, 0.001), self._on_expiry, number)

    def _record_silence(self, batch: Batch, now_s: float) -> None:
        for node in batch.unanswered:
            link = self._links[node]
            is_silent = now_s - max(self._asked_s[node], link.last_heard_s) >= SILENCE_S
            if is_silent and node not in batch.silent:
                batch.silent.add(node)
                link.health.record_failure(now_s)

    def _abandon(self, number: int) -> None:
        """Nobody waits any more: tell the nodes that have not answered."""
        batch = self._forget(number)
        for node in batch.unanswered:
            self._links[node].cancel(batch.search_ids[node])
        self._send_next()

    def _finish(self, number: int) -> None:
        """All nodes have answered or failed."""
        batch = self._forget(number)
        # Late ones count too, or nodes that became slower would be late for ever.
        took_s = min(time.monotonic() - batch.sent_s, _LATE_S_MAX)
        self._usual_s += _USUAL_SMOOTHING * (took_s - self._usual_s)
        self._window.adapt(time.monotonic(), time.process_time())
        self._resolve(batch, batch.waiting)
        self._send_next()

    def _forget(self, number: int) -> Batch:
        batch = self._batches.pop(number)
        self._out.discard(number)
        for timer in (batch.late, batch.expiry):
            if timer is not None:
                timer.cancel()
        return batch

    def _resolve(self, batch: Batch, waiting: list[Waiting]) -> None:
        """Give callers what there is: hits of the answers, results of every shard."""
        began_s = time.monotonic()
        hits, texts = batch.merged()
        results = batch.all_results()
        now_s = time.monotonic()
        for each in waiting:
            if each.outcome.done():
                continue
            each.outcome.set_result(
                BlockOutcome(
                    hits=hits if len(batch.waiting) == 1 else each.rows_of(hits),
                    texts=texts,
                    results=results,
                    queue_s=batch.sent_s - each.arrived_s,
                    retrieval_s=began_s - batch.sent_s,
                    merge_s=now_s - began_s,
                )
            )


def _expire(waiting: Waiting) -> None:
    """The time of a block was up while it waited for its batch."""
    if not waiting.outcome.done():
        waiting.outcome.set_exception(DeadlineSpent("the time was up before a node was asked"))
