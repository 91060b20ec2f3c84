"""The one budget of hedges and retries of a router worker. Pure: the clock is an argument.

Counted in queries sent to a node, not in messages: the budget bounds the work that is added. A bucket
fills by a share of what is sent, and holds a second's worth: steadily that share can be spent, and for
a moment twice as much. That of hedges fills more slowly than it is large, so that also where a full one
is emptied, of any ten seconds a twentieth is hedged at most.
"""

from math import exp

HEDGE_SHARE = 0.05
_HEDGE_FILL = 0.045
EXTRA_SHARE = 0.2  # Hedges and retries together.

_MOMENT_S = 1.0
_MOMENT_QUERIES_MIN = 100.0  # Where fewer are sent in a moment, it is as long as they take.


class Budget:
    """Says whether a hedge or a retry may be sent, and counts both."""

    __slots__ = (
        "_at_s",
        "_extra",
        "_hedges",
        "_recent",
        "hedge_count",
        "query_count",
        "refused_count",
        "retry_count",
    )

    def __init__(self, now_s: float) -> None:
        self._recent, self._at_s = 0.0, now_s  # Queries of the last moment, as an EWMA.
        self._hedges = 0.0
        # A node that is lost right after the start is the one case that cannot have saved up.
        self._extra = EXTRA_SHARE * _MOMENT_QUERIES_MIN
        self.query_count = self.hedge_count = self.retry_count = self.refused_count = 0

    def record_queries(self, now_s: float, count: int) -> None:
        """So many queries were sent to a node; neither hedges nor retries."""
        self.query_count += count
        self._recent = self._recent * exp((self._at_s - now_s) / _MOMENT_S) + count
        self._at_s = now_s
        moment = self._moment
        self._hedges = min(self._hedges + _HEDGE_FILL * count, HEDGE_SHARE * moment)
        self._extra = min(self._extra + EXTRA_SHARE * count, EXTRA_SHARE * moment)

    def take_hedge(self, count: int) -> bool:
        """Whether so many queries may be sent again, to others too; they are spent if so."""
        has_hedges = self._hedges >= min(count, HEDGE_SHARE * self._moment)
        if not (has_hedges and self._has_extra(count)):
            self.refused_count += count
            return False
        self._hedges -= count
        self._extra -= count
        self.hedge_count += count
        return True

    def take_retry(self, count: int) -> bool:
        """Whether so many queries that failed may be sent to others; they are spent if so."""
        if not self._has_extra(count):
            self.refused_count += count
            return False
        self._extra -= count
        self.retry_count += count
        return True

    def counts(self) -> dict[str, int]:
        """Queries so far by what was asked for them, for metrics."""
        return {
            "first": self.query_count,
            "hedge": self.hedge_count,
            "retry": self.retry_count,
            "refused": self.refused_count,
        }

    @property
    def _moment(self) -> float:
        return max(self._recent, _MOMENT_QUERIES_MIN)

    def _has_extra(self, count: int) -> bool:
        """A full bucket is enough for any message: what it lacks is owed."""
        return self._extra >= min(count, EXTRA_SHARE * self._moment)
