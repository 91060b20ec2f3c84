"""Rates and percentiles of the last ten seconds, on times that the test gives."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.telemetry.recent import WINDOW_S, RecentDurations

durations = st.lists(st.floats(1e-5, 15), min_size=1, max_size=60)


@given(durations, st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99, 1.0]), st.floats(0, 1e6))
def test_a_percentile_is_right_to_a_tenth(values: list[float], share: float, now_s: float) -> None:
    """The percentile is at most a tenth over the nearest-rank one, and never under it."""
    recent = RecentDurations()
    for value in values:
        recent.record(now_s, value)
    rank = max(math.ceil(share * len(values) - 1e-9), 1)
    truth = sorted(values)[rank - 1]
    found = recent.percentile_s(now_s, share)
    assert truth * (1 - 1e-9) <= found <= truth * 1.1 * (1 + 1e-9)


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 5)), max_size=30), st.floats(0, 60))
def test_only_the_last_ten_seconds_count(events: list[tuple[float, int]], later_s: float) -> None:
    """The rate counts the events of this second and the nine before it, and no older ones."""
    recent = RecentDurations()
    events.sort()
    for at_s, count in events:
        recent.record(at_s, 0.001, count)
    now_s = max([at_s for at_s, _ in events], default=0.0) + later_s
    counted = sum(count for at_s, count in events if int(at_s) > int(now_s) - WINDOW_S)
    assert counted / WINDOW_S == recent.rate(now_s)


def test_several_events_count_as_often() -> None:
    """A batch records its duration once for each of its queries."""
    recent = RecentDurations()
    recent.record(5.0, 0.001, 99)
    recent.record(5.9, 1.0)
    assert 10.0 == recent.rate(6.0)
    assert 0.0011 >= recent.percentile_s(6.0, 0.99)
    assert 1.0 <= recent.percentile_s(6.0, 1.0)


def test_nothing_recorded_is_0() -> None:
    """Without events, or when all are too old, rate and percentile are 0."""
    recent = RecentDurations()
    assert (0.0, 0.0) == (recent.rate(3.0), recent.percentile_s(3.0, 0.5))
    recent.record(3.0, 0.5)
    assert (0.0, 0.0) == (recent.rate(13.0), recent.percentile_s(13.0, 0.5))
    assert 0.1 == recent.rate(12.9)


@pytest.mark.parametrize(("duration_s", "counted_s"), [(0.0, 1.1e-5), (1e-9, 1.1e-5), (3_600.0, 19.5)])
def test_extreme_durations_are_counted_at_the_ends(duration_s: float, counted_s: float) -> None:
    """Shorter than 10 µs, or longer than about 20 s, counts as that."""
    recent = RecentDurations()
    recent.record(0.0, duration_s)
    assert pytest.approx(counted_s, rel=0.1) == recent.percentile_s(0.0, 1.0)
