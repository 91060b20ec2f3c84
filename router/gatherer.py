"""One gatherer for the whole fan-out: while a batch is out, arriving queries wait for the next.

More than one is out only where that helps (router/window.py). An idle router sends at once; nothing
waits for a timer. A batch that a node keeps for unusually long no longer holds up the next one: a slow
or frozen node costs its own ranges, not everybody's time. Queries of a batch keep their own deadlines:
each is answered, with what there is by then.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping

from rangefinder.cluster_map import ClusterMap
from rangefinder.errors import DeadlineSpent, Internal, Overloaded
from rangefinder.telemetry.logs import get_log
from rangefinder.telemetry.process import busy_s
from router.batch import BATCH_ITEMS_MAX, Batch, BlockOutcome, NodeAnswer, QueryBlock, Waiting
from router.batch_message import batch_content
from router.company import Company
from router.dispatch import Dispatch
from router.node_link import NodeLink
from router.window import Window

# When a batch counts as late: so many times the usual, within these bounds.
_LATE_FACTOR = 4.0
_LATE_S_MIN, _LATE_S_MAX = 0.01, 0.1
_USUAL_SMOOTHING = 0.1

_WAITING_ROWS_MAX = 10_000


class Gatherer:
    """Gathers blocks of queries into batches and merges what comes back."""

    def __init__(
        self, cluster_map: ClusterMap, links: Mapping[str, NodeLink], batch_rows_max: int
    ) -> None:
        self._epoch, self._rows_max = cluster_map.epoch, batch_rows_max
        self.dispatch = Dispatch(cluster_map, links, self._on_answer, self._on_over)
        self._queue: deque[Waiting] = deque()
        self.waiting_rows = 0
        self._out: set[Batch] = set()  # Those that hold up the next one.
        self._batches: set[Batch] = set()
        self._window = Window(time.monotonic(), busy_s)
        self._usual_s = 0.005
        self._company, self._is_letting_in = Company(), False
        self.last_counts: dict[str, int] = {}

    async def search(self, block: QueryBlock) -> BlockOutcome:
        """Answer a block by its deadline with what there is. Raises Overloaded, DeadlineSpent."""
        searching = self.begin(block)
        try:
            return await searching
        finally:
            self.leave(searching)

    def begin(self, block: QueryBlock) -> "asyncio.Future[BlockOutcome]":
        """The answer to come; where it may be sent, the block is on its way on return.

        Raises Overloaded, DeadlineSpent; so may the answer. Call leave() when done with it.
        """
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
        return waiting.outcome

    def leave(self, searching: "asyncio.Future[BlockOutcome]") -> None:
        """Whoever began a search waits no longer: what is not answered by now is dropped."""
        if searching.cancel() or searching.cancelled():
            self._on_left()

    @property
    def batches_out(self) -> int:
        """Batches that somebody waits for."""
        return len(self._batches)

    @property
    def batches_out_max(self) -> int:
        """Batches that may be out at once, now."""
        return self._window.size

    def _send_next(self) -> None:
        """Send what waits, or look again when the loop has turned and others may have come."""
        if not self._is_letting_in and self._queue and len(self._out) < self._window.size:
            self._let_in()

    def _let_in(self) -> None:
        has_room = self.waiting_rows < self._rows_max
        self._is_letting_in = has_room and self._company.is_expected(
            len(self._queue), time.monotonic(), self._usual_s
        )
        if self._is_letting_in:
            asyncio.get_running_loop().call_soon(self._let_in)
        else:
            self._send_waiting()

    def _send_waiting(self) -> None:
        """Send what waits, as long as fewer batches are out than may be."""
        while self._queue and len(self._out) < self._window.size:
            waiting = self._take()
            if waiting:
                self._send_or_fail(waiting)

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

    def _send_or_fail(self, waiting: list[Waiting]) -> None:
        """A bug costs its batch: nobody else would ever tell its callers."""
        try:
            self._send(waiting)
        except Exception:
            get_log().exception("batch_not_sent")
            for each in waiting:
                if not each.outcome.done():
                    each.outcome.set_exception(Internal("a bug of the router: its log has the details"))

    def _send(self, waiting: list[Waiting]) -> None:
        blocks = [each.block for each in waiting]
        batch = Batch(
            waiting=waiting,
            content=batch_content(self._epoch, blocks),
            query_count=sum(len(block.queries) for block in blocks),
            sent_s=time.monotonic(),
            ends_at_s=max(block.deadline.ends_at_s for block in blocks),
            first_end_s=min(block.deadline.ends_at_s for block in blocks),
        )
        self.dispatch.send(batch)
        if batch.attempts.is_over:
            self._resolve(batch, waiting)
            return
        self._batches.add(batch)
        self._out.add(batch)
        self._company.record_batch(len(waiting))
        self._arm_expiry(batch, waiting)
        if self._queue:
            self._watch_late()

    def _on_answer(self, answer: NodeAnswer, answer_s: float) -> None:
        self._window.record(
            queue_length=answer.queue_length,
            node_s=answer.node_s,
            answer_s=answer_s,
            waiting_rows=self.waiting_rows,
        )
        for shard, result in answer.results.items():
            if result.item_count is not None:
                self.last_counts[shard] = result.item_count

    def _watch_late(self) -> None:
        """Somebody waits: for the batches that are out no longer than until they are late."""
        loop, now_s = asyncio.get_running_loop(), time.monotonic()
        late_s = min(max(_LATE_FACTOR * self._usual_s, _LATE_S_MIN), _LATE_S_MAX)
        for batch in self._out:
            if batch.late is None:
                left_s = max(batch.sent_s + late_s - now_s, 0.0)
                batch.late = loop.call_later(left_s, self._on_late, batch)

    def _on_late(self, batch: Batch) -> None:
        self._out.discard(batch)
        self._send_next()

    def _arm_expiry(self, batch: Batch, waiting: list[Waiting]) -> None:
        loop = asyncio.get_running_loop()
        left_s = min(each.block.deadline.remaining_s() for each in waiting)
        batch.expiry = loop.call_later(max(left_s, 0.001), self._on_expiry, batch)

    def _on_expiry(self, batch: Batch) -> None:
        """Answer the blocks whose time is up with what there is; the others go on waiting."""
        self._resolve(batch, [each for each in batch.waiting if each.block.deadline.is_spent()])
        remaining = [each for each in batch.waiting if not each.outcome.done()]
        if remaining:
            self.dispatch.record_silence(batch, time.monotonic())
            self._arm_expiry(batch, remaining)
            return
        self._drop(batch)

    def _on_left(self) -> None:
        """A caller has gone: drop the batches that nobody waits for any more, be they searched or not.

        It looks for them, so that callers who stay need not be remembered for it.
        """
        for batch in list(self._batches):
            if all(each.outcome.done() for each in batch.waiting):
                self._drop(batch)

    def _drop(self, batch: Batch) -> None:
        self._forget(batch)
        self.dispatch.expire(batch)
        self._send_next()

    def _on_over(self, batch: Batch) -> None:
        """Every shard has an answer, or nobody is left to ask."""
        self._forget(batch)
        # Late ones count too, or nodes that became slower would be late for ever.
        now_s = time.monotonic()
        took_s = min(now_s - batch.sent_s, _LATE_S_MAX)
        self._usual_s += _USUAL_SMOOTHING * (took_s - self._usual_s)
        self._window.adapt(now_s)
        try:
            self._resolve(batch, batch.waiting)
        finally:
            self._send_next()

    def _forget(self, batch: Batch) -> None:
        batch.is_resolved = True
        self._batches.discard(batch)
        self._out.discard(batch)
        batch.cancel_timers()

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
