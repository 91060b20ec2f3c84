"""How many batches may be out at once. Pure: the clock and the processor's are arguments.

One batch at a time gathers the most queries into a message, which is the least work for everybody. But
where most of a batch's time is the way to a node and back, it leaves nodes idle while queries wait. So
the window grows by one while queries wait, nodes have no queue and work for less than half of the time
that their answers take, and this worker has processor time left to send smaller batches. It goes back
by one for every period in which that is not so.
"""

from collections.abc import Callable

WINDOW_MAX = 8

# Long enough for several batches and for a share of processor time that means something.
PERIOD_S = 0.1

# A worker that runs, or waits for a processor, for more of the time than this is what the queries wait
# for: smaller batches would make it worse.
BUSY_SHARE_MAX = 0.7

# Of the time of an answer, on the node: it splits a batch over its threads, so one is enough for it.
NODE_SHARE_MAX = 0.5


class Window:
    """The number of batches out at once, adapted every tenth of a second."""

    def __init__(self, now_s: float, busy_s: Callable[[], float]) -> None:
        """busy_s: seconds for which this worker has run or waited for a processor, so far."""
        self.size = 1
        self._busy_s = busy_s
        self._began_s, self._began_busy_s = now_s, busy_s()
        self._begin()

    def _begin(self) -> None:
        self._node_queued, self._query_waited = False, False
        self._node_s, self._answer_s = 0.0, 0.0

    def record(self, *, queue_length: int, node_s: float, answer_s: float, waiting_rows: int) -> None:
        """A node answered, with so much work queued on it, while so many queries waited here.

        node_s: of the time of the answer, what passed on the node.
        """
        self._node_queued |= queue_length > 0
        self._query_waited |= waiting_rows > 0
        self._node_s += node_s
        self._answer_s += answer_s

    def adapt(self, now_s: float) -> None:
        """To be called after each batch."""
        period_s = now_s - self._began_s
        if period_s < PERIOD_S:
            return
        busy_s = self._busy_s()
        busy_share = (busy_s - self._began_busy_s) / period_s
        may_grow = (
            self._query_waited
            and not self._node_queued
            and self._node_s < NODE_SHARE_MAX * self._answer_s
            and busy_share < BUSY_SHARE_MAX
        )
        self.size = min(self.size + 1, WINDOW_MAX) if may_grow else max(self.size - 1, 1)
        self._began_s, self._began_busy_s = now_s, busy_s
        self._begin()
