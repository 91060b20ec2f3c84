"""How fast a node answers lately: a level to choose by, a percentile to hedge by. Pure.

The level is a peak EWMA, as in Finagle: it rises with every slower answer and falls with time alone,
so that a node is turned away from within a few answers, and tried again some seconds later.
"""

from math import exp, log

# Of the difference to a slower answer. One that stands out costs a node little; three in a row carry
# the level two thirds of the way.
_RISE = 0.3

# In so long the level falls to a third: a node a hundred times slower than others is tried every 4 s.
_FALL_S = 1.0

_LEVEL_S_FIRST = 0.001  # Of a node that never answered: it is soon tried, whatever others take.
_LEVEL_S_MIN = 5e-5

# Answers by duration, in bins 15 % wider each: 0.1 ms to 10 s.
_SHORTEST_S, _LOG_GROWTH, _BIN_COUNT = 1e-4, log(1.15), 83

# An answer's weight falls to a third in so long: on average they are as old as in a window of 10 s.
_MEMORY_S = 5.0

_LATE_SHARE = 0.05
_ANSWERS_MIN = 20.0  # Fewer do not make a 95th percentile.
_REFRESH_S = 0.1
_AGE_MAX = 20.0  # In units of _MEMORY_S: then weights begin at 1 again.


class NodePace:
    """The answer times of one node, by message."""

    __slots__ = ("_at_s", "_bins", "_level_s", "_origin_s", "_p95_s", "_refresh_at_s", "_total")

    def __init__(self, now_s: float) -> None:
        self._level_s, self._at_s = _LEVEL_S_FIRST, now_s
        # New answers weigh more instead of old ones less: nothing has to be gone through to forget.
        self._bins, self._total, self._origin_s = [0.0] * _BIN_COUNT, 0.0, now_s
        self._p95_s, self._refresh_at_s = 0.0, now_s

    def record(self, now_s: float, duration_s: float, ahead: int) -> None:
        """An answer came; how long failures take says nothing. ahead: messages sent before it, then."""
        self._rise_to(now_s, duration_s / (ahead + 1))
        place = int(log(max(duration_s, _SHORTEST_S) / _SHORTEST_S) / _LOG_GROWTH)
        weight = exp(self._age(now_s))
        self._bins[min(place, _BIN_COUNT - 1)] += weight
        self._total += weight

    def record_waiting(self, now_s: float, waited_s: float, ahead: int) -> None:
        """An answer is still to come: the node is at least so slow. Seen long before it answers."""
        self._rise_to(now_s, waited_s / (ahead + 1))

    def level_s(self, now_s: float) -> float:
        """What a message takes a node that has no other: waiting for others is not counted twice."""
        return max(self._level_s * exp((self._at_s - now_s) / _FALL_S), _LEVEL_S_MIN)

    def cost(self, now_s: float, in_flight: int) -> float:
        """What one message more is expected to take, where those under way are answered first.

        Until they are, the level is as it was last seen: one that was slow is tried with one message.
        """
        return (self._level_s if in_flight else self.level_s(now_s)) * (in_flight + 1)

    def p95_s(self, now_s: float) -> float:
        """What 95 % of the last answers did not exceed, to 15 %; 0 where they are too few."""
        if now_s >= self._refresh_at_s:
            self._refresh_at_s = now_s + _REFRESH_S
            self._p95_s = self._percentile_s(now_s)
        return self._p95_s

    def _rise_to(self, now_s: float, duration_s: float) -> None:
        level_s = self.level_s(now_s)
        if duration_s > level_s:
            risen_s = level_s + _RISE * (duration_s - level_s)
            level_s = max(risen_s, min(duration_s, self._level_s))  # Seen before, seen again.
        self._level_s, self._at_s = level_s, now_s

    def _age(self, now_s: float) -> float:
        """The exponent of the weight of an answer that comes now."""
        age = (now_s - self._origin_s) / _MEMORY_S
        if age <= _AGE_MAX:
            return age
        self._bins = [each * exp(-age) for each in self._bins]
        self._total *= exp(-age)
        self._origin_s = now_s
        return 0.0

    def _percentile_s(self, now_s: float) -> float:
        weight = exp(self._age(now_s))  # First: this may begin again at 1.
        if self._total < _ANSWERS_MIN * weight:
            return 0.0
        left = _LATE_SHARE * self._total
        place = _BIN_COUNT
        while left >= 0.0 and place > 0:
            place -= 1
            left -= self._bins[place]
        return _SHORTEST_S * exp((place + 1) * _LOG_GROWTH)
