"""How much may be under way at once, so that what is admitted is answered in time. Pure.

A limit that follows latency, after Gradient2 of Netflix's concurrency-limits
(github.com/Netflix/concurrency-limits, Gradient2Limit.java), with two changes. Its usual latency
follows an overload of a minute upwards, until the limit knows no bounds; here it rises slowly and not
at all while calls are refused. And latency up to `tolerated_s` never counts as overload: batches make
answers slower and cheaper at once, and where there is time for that, the limit must not undo it.
"""

from collections import deque
from enum import Enum, auto
from math import inf, sqrt
from typing import Generic, TypeVar

T = TypeVar("T")

# So many times the usual latency are taken for a passing queue.
_TOLERANCE = 2.0

_WINDOW_S, _WINDOW_CALLS_MIN = 0.1, 10
_GRADIENT_MIN = 0.5
_SMOOTHING = 0.5  # From twice too high to right in half a second.
_USUAL_FALL, _USUAL_RISE = 0.1, 0.002  # Of the difference, each window: 1 s, 50 s.

RETRY_AFTER_S_MIN, RETRY_AFTER_S_MAX = 0.05, 1.0


class ConcurrencyLimit:
    """How many calls may run, and how many more may wait."""

    __slots__ = (
        "_calls_most",
        "_count",
        "_is_refusing",
        "_limit",
        "_limit_max",
        "_limit_min",
        "_sum_s",
        "_tolerated_s",
        "_usual_s",
        "_window_ends_s",
        "latency_s",
    )

    def __init__(self, now_s: float, *, limit_min: int, limit_max: int, tolerated_s: float) -> None:
        self._limit_min, self._limit_max = limit_min, limit_max
        self._tolerated_s = tolerated_s
        # High enough for a start under load; where it is not, it grows within a second.
        self._limit = float(min(limit_max, 4 * limit_min))
        self._usual_s = 0.0
        self.latency_s = 0.0  # Mean of the last window.
        self._window_ends_s = now_s + _WINDOW_S
        self._sum_s, self._count, self._calls_most, self._is_refusing = 0.0, 0, 0, False

    @property
    def limit(self) -> int:
        """Calls that may run."""
        return int(self._limit)

    @property
    def waiting_max(self) -> int:
        """Calls that may wait beside them: as many, so that a batch's worth is ready when one ends."""
        return int(self._limit)

    @property
    def calls_max(self) -> int:
        """Calls that may run and wait, however much time they have."""
        return self._limit_max

    @property
    def retry_after_s(self) -> float:
        """When one that is refused may come back: after all that is under way now."""
        return min(max(2 * self.latency_s, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)

    def record(self, now_s: float, took_s: float, calls: int) -> None:
        """A call that was admitted has ended, however; waiting counts. calls: under way and waiting."""
        self._sum_s += took_s
        self._count += 1
        self._calls_most = max(self._calls_most, calls)
        if now_s >= self._window_ends_s and self._count >= _WINDOW_CALLS_MIN:
            self._follow(self._sum_s / self._count)
            self._window_ends_s = now_s + _WINDOW_S
            self._sum_s, self._count, self._calls_most, self._is_refusing = 0.0, 0, 0, False

    def record_refused(self) -> None:
        self._is_refusing = True

    def _follow(self, latency_s: float) -> None:
        self.latency_s = latency_s
        usual_s = self._usual_s or latency_s
        if latency_s < usual_s:
            usual_s += _USUAL_FALL * (latency_s - usual_s)
        elif not self._is_refusing:
            usual_s += _USUAL_RISE * (latency_s - usual_s)
        self._usual_s = usual_s
        aim_s = max(_TOLERANCE * usual_s, self._tolerated_s)
        gradient = max(_GRADIENT_MIN, min(1.0, aim_s / latency_s))
        # A limit that is not used up says nothing of how much would be too much; one that is hardly
        # used has nothing to do with how long answers take.
        if self._calls_most < (self.limit if gradient == 1.0 else self.limit / 2):
            return
        wanted = self._limit * gradient + sqrt(self._limit)
        limit = self._limit + _SMOOTHING * (wanted - self._limit)
        self._limit = min(max(limit, self._limit_min), self._limit_max)


class Place(Enum):
    """What becomes of a call that arrives."""

    RUNS = auto()
    WAITS = auto()
    REFUSED = auto()


# A call may wait beyond `waiting_max` where it has so many times the time that its turn is expected to
# take: what is expected of a busy server is soon wrong.
_PATIENCE = 2.0

_GAP_SMOOTHING = 0.1

# A call that takes more of its time was most likely cut off: others keep back a tenth for the answer.
_IN_TIME_SHARE = 0.9


class Line(Generic[T]):
    """Calls under way and those that wait for a place, first come, first served.

    The longest line is for those who have time: a burst of calls of ten seconds is no overload.
    """

    __slots__ = ("_gap_s", "_left_s", "_waiting", "limit", "running")

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self.limit, self.running = limit, 0
        self._gap_s, self._left_s = 0.0, 0.0  # From one end of a call to the next while others wait.
        self._waiting: deque[tuple[float, float, T]] = deque()  # Deadline, arrival, call.

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def enter(self, now_s: float, ends_at_s: float, call: T) -> Place:
        """A call arrives."""
        if self.running < self.limit.limit and not self._waiting:
            self.running += 1
            return Place.RUNS
        if len(self._waiting) >= self.limit.waiting_max and not self._has_time(ends_at_s - now_s):
            self.limit.record_refused()
            return Place.REFUSED
        self._waiting.append((ends_at_s, now_s, call))
        return Place.WAITS

    def _has_time(self, allowed_s: float) -> bool:
        calls = self.running + len(self._waiting) + 1
        return calls <= self.limit.calls_max and calls * self._gap_s * _PATIENCE <= allowed_s

    @property
    def next_end_s(self) -> float:
        """The first deadline of those that wait."""
        return min((ends_at_s for ends_at_s, _, _ in self._waiting), default=inf)

    def expire(self, now_s: float) -> list[T]:
        """Calls whose time is up leave the line; returns them."""
        expired = [each for each in self._waiting if each[0] <= now_s]
        self._waiting = deque(each for each in self._waiting if each[0] > now_s)
        for _, arrived_s, _ in expired:
            self.limit.record(now_s, now_s - arrived_s, self.running + len(self._waiting))
        return [call for _, _, call in expired]

    def drop(self, call: T) -> None:
        """A call that waits has gone."""
        self._waiting = deque(each for each in self._waiting if each[2] is not call)

    def leave(self, now_s: float, arrived_s: float, ends_at_s: float) -> tuple[list[T], list[T]]:
        """A call that ran has ended; returns those that run now, and those whose time was up."""
        self.limit.record(now_s, now_s - arrived_s, self.running + len(self._waiting))
        self.running -= 1
        self._note_end(now_s, now_s < arrived_s + _IN_TIME_SHARE * (ends_at_s - arrived_s))
        begun: list[T] = []
        expired: list[T] = []
        while self._waiting and self.running < self.limit.limit:
            ends_at_s, waited_from_s, call = self._waiting.popleft()
            if ends_at_s > now_s:
                self.running += 1
                begun.append(call)
            else:
                expired.append(call)
                self.limit.record(now_s, now_s - waited_from_s, self.running + len(self._waiting))
        return begun, expired

    def _note_end(self, now_s: float, is_in_time: bool) -> None:
        """Learn how often calls end. One that was cut off by its deadline ended for nothing."""
        gap_s = now_s - self._left_s
        if self._waiting and self._left_s and (is_in_time or gap_s > self._gap_s):
            self._gap_s += _GAP_SMOOTHING * (gap_s - self._gap_s)
        if not self._waiting:
            self._left_s = 0.0
        elif is_in_time or not self._left_s:
            self._left_s = now_s
