"""Rates and percentiles of the last ten seconds, in constant memory. Pure: the clock is an argument."""

import math

import numpy as np

WINDOW_S = 10

# Durations in bins a tenth wider each: 10 µs to about 20 s. A percentile is exact to a tenth.
_BIN_COUNT = 152
_SHORTEST_S, _GROWTH = 1e-5, 1.1
_LOG_GROWTH = math.log(_GROWTH)


class RecentDurations:
    """Durations by the second in which they were recorded."""

    def __init__(self) -> None:
        # Lists: an element of an array takes several times as long to count up.
        self._bins = [[0] * _BIN_COUNT for _ in range(WINDOW_S)]
        self._seconds = [-1] * WINDOW_S

    def record(self, now_s: float, duration_s: float, count: int = 1) -> None:
        """Record `count` events of one duration."""
        second = int(now_s)
        slot = second % WINDOW_S
        if self._seconds[slot] != second:
            self._seconds[slot] = second
            self._bins[slot] = [0] * _BIN_COUNT
        place = math.log(max(duration_s, _SHORTEST_S) / _SHORTEST_S) / _LOG_GROWTH
        self._bins[slot][min(int(place), _BIN_COUNT - 1)] += count

    def rate(self, now_s: float) -> float:
        """Events per second over the window."""
        return float(self._recent(now_s).sum()) / WINDOW_S

    def percentile_s(self, now_s: float, share: float) -> float:
        """The duration that `share` of the events did not exceed; 0 without events."""
        counts = np.cumsum(self._recent(now_s))
        if counts[-1] == 0:
            return 0.0
        place = int(np.searchsorted(counts, share * counts[-1]))
        return float(_SHORTEST_S * _GROWTH ** (place + 1))

    def _recent(self, now_s: float) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        is_recent = np.array(self._seconds) > int(now_s) - WINDOW_S
        counts: np.ndarray[tuple[int], np.dtype[np.int64]] = np.array(self._bins)[is_recent].sum(axis=0)
        return counts
