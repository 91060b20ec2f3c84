"""When requests are due, and what is read from their times."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.cli.bench.schedule import Latency, Samples, bins, due_times

NOWHERE = math.nan

moments = st.lists(
    st.tuples(
        st.floats(0, 10),  # Due.
        st.floats(0, 1),  # Sent so long after.
        st.floats(0, 5),  # Ended so long after that.
        st.sampled_from([0.0, 0.5, 1.0, NOWHERE]),
    ),
    max_size=60,
)


def samples(rows: list[tuple[float, float, float, float]]) -> Samples:
    columns = np.array(rows, np.float64).reshape(-1, 4)
    due_s, sent_s = columns[:, 0], columns[:, 0] + columns[:, 1]
    return Samples(
        due_s=due_s,
        sent_s=sent_s,
        ended_s=sent_s + columns[:, 2],
        coverages=columns[:, 3],
        reasons=np.where(np.isnan(columns[:, 3]), "DEADLINE_SPENT", ""),
    )


@given(st.floats(0.1, 5_000), st.floats(0, 1e6), st.floats(0, 3))
def test_an_open_loop_has_its_rate(rate: float, begin_s: float, seconds: float) -> None:
    """Times are evenly spaced from the beginning on, all before the end, and none is missing."""
    due_s = due_times(rate, begin_s, begin_s + seconds)
    assert abs(len(due_s) - seconds * rate) <= 1.01
    assert all(begin_s <= each < begin_s + seconds for each in due_s)
    assert np.allclose(np.diff(due_s), 1 / rate, atol=1e-6)


def test_latency_counts_from_when_a_request_was_due() -> None:
    """One that was sent late is as slow as it was for who wanted it then; failures have no latency."""
    late = samples([(1.0, 0.5, 0.25, 1.0), (2.0, 0.0, 4.0, NOWHERE)])
    latency = Latency.of(late)
    assert latency == Latency(p50=750, p90=750, p95=750, p99=750, p99_9=750)
    assert (late.failed, late.partial) == (1, 0)
    assert Latency.of(samples([(0, 0, 1, NOWHERE)])) is None


@given(moments)
def test_percentiles_are_those_of_the_answers(rows: list[tuple[float, float, float, float]]) -> None:
    """They ascend, lie among the answers' times, and half of the answers are no slower than p50."""
    latency = Latency.of(samples(rows))
    took_ms = sorted(
        (sent + took) * 1000 for _, sent, took, coverage in rows if not math.isnan(coverage)
    )
    if not took_ms:
        assert latency is None
        return
    assert latency is not None
    found = [latency.p50, latency.p90, latency.p99, latency.p99_9]
    assert found == sorted(found)
    assert took_ms[0] - 1e-6 <= latency.p50 and latency.p99_9 <= took_ms[-1] + 1e-6
    assert sum(each <= latency.p50 + 1e-6 for each in took_ms) >= len(took_ms) / 2


@given(moments, st.sampled_from([0.1, 0.25, 1.0]))
def test_bins_hold_every_request_once(
    rows: list[tuple[float, float, float, float]], width_s: float
) -> None:
    """Each request is in the bin of its due time, with its failure; each bin is there, empty or not."""
    found = bins(samples(rows), 0.0, 12.0, width_s)
    assert len(found) == round(12 / width_s)
    assert sum(each.requests for each in found) == len(rows)
    assert sum(each.failed for each in found) == sum(math.isnan(coverage) for *_, coverage in rows)
    for each in found:
        assert (each.p50_ms is None) == (each.requests == each.failed) == (each.coverage is None)
        assert each.coverage is None or 0 <= each.coverage <= 1


@given(moments, st.floats(0, 10), st.floats(0, 5))
def test_a_window_takes_what_belongs_to_it(
    rows: list[tuple[float, float, float, float]], begin_s: float, seconds: float
) -> None:
    """A closed loop counts what ended in the window, an open one what was due in it."""
    found, end_s = samples(rows), begin_s + seconds
    ended = [each for each in found.ended_s if begin_s <= each < end_s]
    due = [each for each in found.due_s if begin_s <= each < end_s]
    assert ended == found.ended_within(begin_s, end_s).ended_s.tolist()
    assert due == found.due_within(begin_s, end_s).due_s.tolist()


@given(moments, moments)
def test_generators_add_up(
    one: list[tuple[float, float, float, float]], other: list[tuple[float, float, float, float]]
) -> None:
    """What several generators saw is one list, and failures by reason add up."""
    both = Samples.together([samples(one), samples(other)])
    assert len(both.due_s) == len(one) + len(other)
    assert both.failed == both.failures.get("DEADLINE_SPENT", 0)
    assert both.partial == sum(coverage < 1 for *_, coverage in one + other)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_time_has_no_request(seconds: float) -> None:
    """A load of no length has none, not a negative number of them."""
    assert len(due_times(100, 5.0, 5.0 + seconds)) == 0
