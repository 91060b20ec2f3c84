"""When a node is left out, and when it is taken back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.health import EJECTION_S, EJECTION_S_MAX, FAILURE_COUNT_MAX, NodeHealth

NOW_S = 1_000.0


def ejected() -> NodeHealth:
    health = NodeHealth()
    for _ in range(FAILURE_COUNT_MAX):
        health.record_failure(NOW_S)
    return health


@given(st.lists(st.booleans(), max_size=30))
def test_three_failures_in_a_row_eject(answers: list[bool]) -> None:
    """A node is ejected by three failures with no success between them, and by nothing less."""
    health = NodeHealth()
    in_a_row = 0
    for answered in answers:
        if answered:
            health.record_success()
        else:
            health.record_failure(NOW_S)
        in_a_row = 0 if answered else in_a_row + 1
        assert (in_a_row >= 3) == health.is_ejected


def test_a_probe_is_due_a_second_after_the_ejection() -> None:
    """A node that works is never probed; an ejected one after EJECTION_S, and not before."""
    health = ejected()
    due = [health.is_probe_due(NOW_S + after_s) for after_s in (0, EJECTION_S - 0.01, EJECTION_S, 99)]
    assert [False, False, True, True] == due
    assert not NodeHealth().is_probe_due(NOW_S)


def test_failures_after_the_ejection_do_not_put_the_probe_off() -> None:
    """What was in flight when a node was ejected may still fail: its probe stays when it is."""
    health = ejected()
    health.record_failure(NOW_S + 0.9)
    assert health.is_probe_due(NOW_S + EJECTION_S)
    assert 1 == health.ejection_count


def test_failed_probes_are_further_and_further_apart() -> None:
    """Each failed probe adds EJECTION_S to the wait for the next one, up to a minute."""
    health, now_s, waits_s = ejected(), NOW_S, []
    for _ in range(70):
        waits_s.append(health.probe_at_s - now_s)
        now_s = health.probe_at_s
        health.record_probe(now_s, succeeded=False)
        assert health.is_ejected
    expected = [min(EJECTION_S * count, EJECTION_S_MAX) for count in range(1, 71)]
    assert pytest.approx(expected) == waits_s


def test_taken_back_a_node_has_one_failure_left() -> None:
    """A successful probe takes a node back; its next failure ejects it, for longer than before."""
    health = ejected()
    health.record_probe(NOW_S + 1, succeeded=True)
    was_ejected = health.is_ejected
    health.record_failure(NOW_S + 2)
    assert (False, True) == (was_ejected, health.is_ejected)
    assert NOW_S + 2 + 2 * EJECTION_S == health.probe_at_s


def test_an_answer_makes_a_node_as_good_as_new() -> None:
    """After a success it takes three failures again, and the wait is the first one."""
    health = ejected()
    health.record_probe(NOW_S + 1, succeeded=True)
    health.record_success()
    assert NodeHealth(probe_at_s=health.probe_at_s) == health
    for _ in range(FAILURE_COUNT_MAX):
        assert not health.is_ejected
        health.record_failure(NOW_S + 2)
    assert NOW_S + 2 + EJECTION_S == health.probe_at_s
