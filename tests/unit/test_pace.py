"""How fast a node is taken for, on times that the test gives."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.pace import NodePace

NOW_S = 1_000.0
FAST_S, SLOW_S = 0.002, 0.2

durations = st.lists(st.floats(1e-4, 9.0), min_size=20, max_size=80)


def answering(duration_s: float, *, from_s: float, for_s: float, rate: int = 100) -> NodePace:
    """A node that has answered so fast, so often, for so long."""
    pace = NodePace(from_s)
    for place in range(int(for_s * rate)):
        pace.record(from_s + place / rate, duration_s, 0)
    return pace


@given(durations)
def test_a_percentile_is_right_to_its_bin(values: list[float]) -> None:
    """The percentile is at most 15 % over the nearest-rank one, and never under it."""
    pace = NodePace(NOW_S)
    for value in values:
        pace.record(NOW_S, value, 0)
    truth = sorted(values)[math.ceil(0.95 * len(values) - 1e-9) - 1]
    assert truth * (1 - 1e-9) <= pace.p95_s(NOW_S) <= truth * 1.15 * (1 + 1e-9)


@given(st.lists(st.floats(1e-4, 9.0), max_size=19))
def test_few_answers_make_no_percentile(values: list[float]) -> None:
    """Under twenty answers nothing is known, whatever they took."""
    pace = NodePace(NOW_S)
    for value in values:
        pace.record(NOW_S, value, 0)
    assert 0.0 == pace.p95_s(NOW_S)


def test_answers_are_forgotten() -> None:
    """20 s after a node became fast its slow answers are gone; without answers, so is all knowledge."""
    pace = answering(SLOW_S, from_s=NOW_S - 60.0, for_s=60.0)
    for place in range(2_000):
        pace.record(NOW_S + place / 100, FAST_S, 0)
    assert FAST_S <= pace.p95_s(NOW_S + 20.0) <= FAST_S * 1.15
    assert 0.0 == pace.p95_s(NOW_S + 3_600.0)


def test_a_long_life_ends_in_no_overflow() -> None:
    """Weights that grow for days, and days without an answer, leave the percentile right."""
    pace = NodePace(0.0)
    for day in range(3):
        for place in range(100):
            pace.record(day * 86_400 + place * 0.1, FAST_S * (day + 1), 0)
    assert 3 * FAST_S <= pace.p95_s(2 * 86_400 + 10.0) <= 3 * FAST_S * 1.15


@given(durations, st.integers(1, 50))
def test_the_level_is_within_what_was_seen(values: list[float], in_flight: int) -> None:
    """A level never exceeds the slowest answer or the guess at the start; costs rise by the message."""
    pace = NodePace(NOW_S)
    for place, value in enumerate(values):
        pace.record(NOW_S + place * 0.01, value, 0)
    now_s = NOW_S + 0.01 * (len(values) - 1)
    level_s = pace.level_s(now_s)
    assert 0.0 < level_s <= max([*values, 0.001])
    assert pytest.approx(level_s * (in_flight + 1)) == pace.cost(now_s, in_flight)


def test_one_answer_of_a_node_that_was_slow_is_awaited() -> None:
    """What time has made of a level lets one message through: with that under way it is as it was."""
    slow = answering(SLOW_S, from_s=NOW_S - 10.0, for_s=10.0)
    costs = [slow.cost(NOW_S + 6.0, in_flight) for in_flight in (0, 1)]
    assert costs[0] < FAST_S
    assert costs[1] > SLOW_S


def test_a_node_that_is_still_slow_is_tried_no_oftener() -> None:
    """An answer as slow as those before brings the level back to where it was, however long ago."""
    slow = answering(SLOW_S, from_s=NOW_S - 10.0, for_s=10.0)
    slow.record(NOW_S + 5.0, SLOW_S, 0)
    assert pytest.approx(SLOW_S, rel=0.05) == slow.level_s(NOW_S + 5.0)


def test_a_node_that_becomes_slow_is_turned_away_from_at_once() -> None:
    """One slow answer, or one that is still to come, makes a node dearer than a queue of ten."""
    for record in (NodePace.record, NodePace.record_waiting):
        pace = answering(FAST_S, from_s=NOW_S - 10.0, for_s=10.0)
        others = answering(FAST_S, from_s=NOW_S - 10.0, for_s=10.0)
        record(pace, NOW_S, SLOW_S, 0)
        assert pace.cost(NOW_S, 0) > others.cost(NOW_S, 10)


def test_waiting_for_less_than_usual_says_nothing() -> None:
    """An answer that is not due yet leaves the level where time would have it."""
    pace, other = (answering(SLOW_S, from_s=NOW_S - 10.0, for_s=10.0) for _ in range(2))
    pace.record_waiting(NOW_S, FAST_S, 0)
    assert pytest.approx(other.level_s(NOW_S + 1.0)) == pace.level_s(NOW_S + 1.0)


def test_a_node_that_was_slow_is_tried_again() -> None:
    """Without answers a level falls: a hundredfold one is tried again within 3 to 6 s."""
    slow = answering(SLOW_S, from_s=NOW_S - 10.0, for_s=10.0)
    others = answering(FAST_S, from_s=NOW_S - 10.0, for_s=16.0)
    assert slow.cost(NOW_S + 3.0, 0) > others.cost(NOW_S + 6.0, 1)
    assert slow.cost(NOW_S + 6.0, 0) < others.cost(NOW_S + 6.0, 1)


def test_one_slow_answer_is_forgiven_soon() -> None:
    """A node that stood still once is taken as the others again within 4 s."""
    pace = answering(FAST_S, from_s=NOW_S - 10.0, for_s=10.0)
    pace.record(NOW_S, SLOW_S, 0)
    assert pace.level_s(NOW_S + 4.0) < FAST_S


def test_waiting_for_others_is_not_counted_twice() -> None:
    """A node that answers four messages one after another is as fast as one that gets them singly."""
    singly, together = NodePace(NOW_S), NodePace(NOW_S)
    for place in range(100):
        singly.record(NOW_S + place * 0.01, FAST_S, 0)
        together.record(NOW_S + place * 0.01, 4 * FAST_S, 3)
    assert singly.level_s(NOW_S + 1.0) == together.level_s(NOW_S + 1.0)
    assert together.p95_s(NOW_S + 1.0) > 3 * singly.p95_s(NOW_S + 1.0)
