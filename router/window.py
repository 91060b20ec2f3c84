"""How many batches may be out at once. Pure: the clock and the processor's are arguments.

One batch at a time gathers the most queries into a message, which is the least work for everybody. But
where nodes are far away or search for long, it leaves them idle while queries wait. So the window grows
by one while queries wait, no node has a queue, and this worker has processor time left to send smaller
batches; and it goes back by one for every period in which that is not so.
"""

WINDOW_MAX = 8

# Long enough for several batches and for a share of processor time that means something.
PERIOD_S = 0.1

# Busier than this, a worker is what the queries wait for: smaller batches would make it busier.
BUSY_SHARE_MAX = 0.7


class Window:
    """The number of batches out at once, adapted every tenth of a second."""

    def __init__(self, now_s: float, cpu_s: float) -> None:
        self.size = 1
        self._began_s, self._began_cpu_s = now_s, cpu_s
        self._node_queued, self._query_waited = False, False

    def record(self, *, queue_length: int, waiting_rows: int) -> None:
        """A node answered, with so much work queued on it, while so many queries waited here."""
        self._node_queued |= queue_length > 0
        self._query_waited |= waiting_rows > 0

    def adapt(self, now_s: float, cpu_s: float) -> None:
        """To be called after each batch; cpu_s is the processor time of this process so far."""
        period_s = now_s - self._began_s
        if period_s < PERIOD_S:
            return
        busy_share = (cpu_s - self._began_cpu_s) / period_s
        may_grow = self._query_waited and not self._node_queued and busy_share < BUSY_SHARE_MAX
        self.size = min(self.size + 1, WINDOW_MAX) if may_grow else max(self.size - 1, 1)
        self._began_s, self._began_cpu_s = now_s, cpu_s
        self._node_queued = self._query_waited = False
