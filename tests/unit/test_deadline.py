"""The deadline of a request, on a clock that the test sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.deadline import Deadline
from rangefinder.errors import DeadlineSpent


class SetClock:
    """A clock that stands still until it is set."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("later_s", "left_s"), [(0.0, 2.0), (1.5, 0.5), (2.0, 0.0), (9.0, 0.0)])
def test_a_deadline_runs_down_to_0(later_s: float, left_s: float) -> None:
    """The time left is never negative, and is spent exactly when there is none."""
    clock = SetClock(100.0)
    deadline = Deadline.after(2.0, clock)
    clock.now_s += later_s
    assert (left_s, left_s == 0) == (deadline.remaining_s(), deadline.is_spent())


def test_no_work_begins_after_the_deadline() -> None:
    """require_time_left passes before the end and raises from then on."""
    clock = SetClock(0.0)
    deadline = Deadline.after(1.0, clock)
    deadline.require_time_left()
    clock.now_s = 1.0
    with pytest.raises(DeadlineSpent):
        deadline.require_time_left()


@given(st.floats(0, 1e4), st.floats(0, 1e6))
def test_the_reserve_stays_in_its_bounds(left_s: float, now_s: float) -> None:
    """A tenth is kept back, 5 to 50 ms, and never more than half of what is left."""
    deadline = Deadline.after(left_s, SetClock(now_s))
    left_s = deadline.remaining_s()  # What rounding made of it.
    reserve_s = deadline.ends_at_s - deadline.with_reserve().ends_at_s
    tolerance_s = 1e-9 * max(now_s, 1)
    assert reserve_s <= min(0.05, left_s / 2) + tolerance_s
    assert reserve_s >= min(0.005, left_s / 2) - tolerance_s
    if 0.05 <= left_s <= 0.5:
        assert pytest.approx(left_s / 10, abs=tolerance_s) == reserve_s


@pytest.mark.parametrize(
    ("left_s", "reserve_s"),
    [(10.0, 0.05), (0.5, 0.05), (0.2, 0.02), (0.05, 0.005), (0.02, 0.005), (0.004, 0.002), (0.0, 0.0)],
)
def test_the_reserve(left_s: float, reserve_s: float) -> None:
    """What is kept back of some times."""
    deadline = Deadline.after(left_s, SetClock(0.0))
    assert pytest.approx(left_s - reserve_s) == deadline.with_reserve().ends_at_s


def test_a_spent_deadline_stays_spent() -> None:
    """The reserve of no time is no time: it never moves a deadline on."""
    clock = SetClock(0.0)
    deadline = Deadline.after(1.0, clock)
    clock.now_s = 3.0
    assert deadline == deadline.with_reserve()
