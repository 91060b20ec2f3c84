"""Which failures are worth a second attempt, and how many there may be. Pure.

Everything that the client asks is safe to ask again: it reads.
"""

import math
from dataclasses import dataclass

from rangefinder.errors import (
    Draining,
    MapChanged,
    NotReady,
    Overloaded,
    RangefinderError,
    ReplicaUnavailable,
)

# The router is not there, or takes no more requests.
ABSENT = (ReplicaUnavailable, NotReady, Draining)

# What a draining router has not begun moves on, and adds no load: no retry, but not without end either.
MOVE_COUNT_MAX = 4

# An attempt that has less time left could not be answered.
ATTEMPT_S_MIN = 0.002

RETRY_SHARE = 0.2  # Of the requests.
# A second, whatever the requests: one that asks rarely, or has just begun, may lose a whole stream of
# 64 batches with its router. These three numbers are Finagle's, too.
RETRY_RATE_MIN = 10.0
MEMORY_S = 10.0  # How long a request that was not asked again lets another be.


def pause_before_retry_s(error: RangefinderError) -> float | None:
    """Seconds to wait before the second attempt; None where there should be none.

    A deadline that has passed is over. COVERAGE_TOO_LOW speaks of the nodes, of which that router
    has asked every replica it could. gRPC's own RESOURCE_EXHAUSTED is no word of ours: it may mean
    that the message is too large.
    """
    match error:
        case Overloaded():
            return error.retry_after_ms / 1000
        case NotReady() | Draining() | ReplicaUnavailable() | MapChanged():
            return 0.0
    return None


@dataclass(slots=True, kw_only=True)
class RetryBudget:
    """A bucket of tokens, one for each retry; those that nobody takes fade.

    A fixed bound would be too small for a busy client that loses a router with hundreds of requests
    under way, and too large for a quiet one: this one holds those of the last MEMORY_S.
    """

    updated_s: float
    tokens: float = RETRY_RATE_MIN * MEMORY_S

    def record_request(self, now_s: float) -> None:
        self._fade(now_s)
        self.tokens += RETRY_SHARE

    def spend(self, now_s: float) -> bool:
        """Take a token for a retry; returns whether there was one."""
        self._fade(now_s)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def _fade(self, now_s: float) -> None:
        kept, self.updated_s = math.exp((self.updated_s - now_s) / MEMORY_S), now_s
        self.tokens = self.tokens * kept + RETRY_RATE_MIN * MEMORY_S * (1 - kept)
