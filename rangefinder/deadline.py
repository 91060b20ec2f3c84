"""The one deadline of a request: made once, where the request arrives, and passed down."""

from collections.abc import Callable
from dataclasses import dataclass

from rangefinder.errors import DeadlineSpent

Clock = Callable[[], float]  # Monotonic seconds.

# What is kept back of the time left, so that the stages after the slowest node still fit.
RESERVE_SHARE = 0.1
RESERVE_S_MIN = 0.005
RESERVE_S_MAX = 0.05


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on a monotonic clock after which nobody waits for the answer any more."""

    ends_at_s: float
    clock: Clock

    @classmethod
    def after(cls, allowed_s: float, clock: Clock) -> "Deadline":
        return cls(clock() + allowed_s, clock)

    def remaining_s(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self.ends_at_s - self.clock())

    def is_spent(self) -> bool:
        return self.clock() >= self.ends_at_s

    def require_time_left(self) -> None:
        """Raise DeadlineSpent where no work should begin any more."""
        if self.is_spent():
            raise DeadlineSpent("the deadline passed before the work began: allow more time")

    def with_reserve(self) -> "Deadline":
        """An earlier deadline for the stage that waits for others: a tenth of what is left is kept.

        At least 5 ms (a merge and the way back), at most 50 ms, and never more than half.
        """
        left_s = self.remaining_s()
        reserve_s = min(max(left_s * RESERVE_SHARE, RESERVE_S_MIN), RESERVE_S_MAX, left_s / 2)
        return Deadline(self.ends_at_s - reserve_s, self.clock)
