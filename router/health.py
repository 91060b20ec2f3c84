"""Which nodes are asked: one that keeps failing is left out, then probed and eased in again. Pure."""

from dataclasses import dataclass

FAILURE_COUNT_MAX = 3  # In a row.

# One that fails half of the time rarely does so three times in a row.
WINDOW_S = 1.0
WINDOW_CALLS_MIN = 20

EJECTION_S = 1.0  # Times the number of ejections in a row.
EJECTION_S_MAX = 60.0
FORGIVEN_S = 10.0  # In for so long, and for as long as it was out, a node starts afresh.

# A node that has said nothing for so long, while it owes an answer, counts as failing. Shorter
# deadlines of callers do not: they say more about the caller.
SILENCE_S = 0.1

# Where another replica has answered, silence counts without waiting for a deadline: once in so long,
# so a router that was stalled itself reads its sockets before the third time.
LOST_SILENCE_S = 0.25

# A node that is new or was taken back has cold caches, and may fail again: it comes back to its full
# share in so long.
SLOW_START_S = 5.0
SHARE_MIN = 0.1


@dataclass(slots=True, kw_only=True)
class NodeHealth:
    """Ejects a node after failures; one successful probe takes it back, at first for a small share."""

    is_ejected: bool = False
    is_silent: bool = False  # Ejected or not, the last thing that was expected of it never came.
    failure_count: int = 0  # In a row.
    ejection_count: int = 0
    probe_at_s: float = 0.0
    eased_from_s: float = float("-inf")
    owing_from_s: float = float("inf")  # What another replica has answered in its place.
    window_from_s: float = float("-inf")  # Begins with a failure: successes need no clock.
    window_calls: int = 0
    window_failures: int = 0

    def record_heard(self) -> None:
        """The node has said something, whatever it was, and whether or not anybody waits for it."""
        self.is_silent = False
        self.owing_from_s = float("inf")

    def record_success(self) -> None:
        """An answer came. An ejected node stays out until its probe: it may answer every other call."""
        self.record_heard()
        self.window_calls += 1
        if not self.is_ejected:
            self.failure_count = 0

    def record_failure(self, now_s: float) -> None:
        """A call failed with a word of the node, or with its connection."""
        self.record_heard()
        self._count_failure(now_s)

    def record_silence(self, now_s: float) -> None:
        """A call had no answer when it was needed, and nothing else was heard for SILENCE_S."""
        self.is_silent = True
        self._count_failure(now_s)

    def record_lost(self, sent_s: float) -> None:
        """Another replica has answered what this node was asked then; it has said nothing since.

        The search must not be cancelled: a node that is spared an answer would seem to be silent.
        """
        self.owing_from_s = min(self.owing_from_s, sent_s)

    def look(self, now_s: float) -> None:
        """Count the silence of a node that owes an answer. Call it at least as often."""
        if now_s - self.owing_from_s >= LOST_SILENCE_S:
            self.owing_from_s = now_s
            self.record_silence(now_s)

    def record_ready(self, now_s: float) -> None:
        """The node says that it is READY, on a new connection."""
        self.record_heard()
        self.failure_count = 0
        self._take_back(now_s)

    def is_probe_due(self, now_s: float) -> bool:
        return self.is_ejected and now_s >= self.probe_at_s

    def record_probe(self, now_s: float, *, succeeded: bool) -> None:
        """A probe of an ejected node ended. Taken back, it has one failure left."""
        if not self.is_ejected:
            return  # A new connection has taken it back already.
        if not succeeded:
            # It is out longer each time that it was taken back too early; this time it was not.
            self.probe_at_s = now_s + EJECTION_S
            return
        self.record_heard()
        self.failure_count = FAILURE_COUNT_MAX - 1
        self._take_back(now_s)

    def share(self, now_s: float) -> float:
        """In (0, 1]: how often the node is looked at, while it is eased in."""
        return min(max((now_s - self.eased_from_s) / SLOW_START_S, SHARE_MIN), 1.0)

    def _count_failure(self, now_s: float) -> None:
        if now_s - self.window_from_s >= WINDOW_S:
            self.window_from_s, self.window_calls, self.window_failures = now_s, 0, 0
        self.failure_count += 1
        self.window_calls += 1
        self.window_failures += 1
        is_half = self.window_failures * 2 >= self.window_calls >= WINDOW_CALLS_MIN
        if not self.is_ejected and (self.failure_count >= FAILURE_COUNT_MAX or is_half):
            if now_s - self.eased_from_s >= max(FORGIVEN_S, self._out_s):
                self.ejection_count = 0
            self._eject(now_s)

    @property
    def _out_s(self) -> float:
        return min(EJECTION_S * self.ejection_count, EJECTION_S_MAX)

    def _eject(self, now_s: float) -> None:
        self.is_ejected = True
        self.ejection_count += 1
        self.probe_at_s = now_s + self._out_s

    def _take_back(self, now_s: float) -> None:
        self.is_ejected = False
        self.eased_from_s = now_s
        self.window_from_s = float("-inf")
