"""When a node is left out, and when it is taken back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.health import (
    EJECTION_S,
    FAILURE_COUNT_MAX,
    FORGIVEN_S,
    LOST_SILENCE_S,
    SHARE_MIN,
    SLOW_START_S,
    WINDOW_CALLS_MIN,
    WINDOW_S,
    NodeHealth,
)

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
    for answered in answers[:WINDOW_CALLS_MIN]:
        if answered:
            health.record_success()
        else:
            health.record_failure(NOW_S)
        in_a_row = 0 if answered else in_a_row + 1
        if in_a_row == FAILURE_COUNT_MAX:
            break
    assert (in_a_row == FAILURE_COUNT_MAX) == health.is_ejected


@given(st.lists(st.booleans(), min_size=WINDOW_CALLS_MIN, max_size=60))
def test_half_of_twenty_failures_in_a_second_eject(answers: list[bool]) -> None:
    """From a failure on, a node is ejected once at least 20 calls were made and half of them failed."""
    health, calls, failures, in_a_row = NodeHealth(), 0, 0, 0
    for place, answered in enumerate(answers):
        if answered:
            health.record_success()
        else:
            health.record_failure(NOW_S + place * 0.9 / len(answers))
        in_a_row = 0 if answered else in_a_row + 1
        if failures or not answered:  # What was before the first failure is not looked at.
            calls, failures = calls + 1, failures + (not answered)
        is_half = not answered and calls >= WINDOW_CALLS_MIN and failures * 2 >= calls
        assert (in_a_row == FAILURE_COUNT_MAX or is_half) == health.is_ejected
        if health.is_ejected:
            break


def test_failures_of_another_second_do_not_count() -> None:
    """A failure a second after the first of a window begins a new one."""
    health = NodeHealth()
    for place in range(40):
        health.record_failure(NOW_S + place * WINDOW_S / 9)
        health.record_success()
    assert not health.is_ejected


def test_a_late_answer_does_not_take_a_node_back() -> None:
    """What was in flight at the ejection may succeed: the node still waits for its probe."""
    health = ejected()
    health.record_success()
    assert (True, True) == (health.is_ejected, health.is_probe_due(NOW_S + EJECTION_S))


def test_a_new_connection_takes_a_node_back() -> None:
    """A node that says READY is asked at once, for a small share; its probe changes nothing more."""
    health = ejected()
    health.record_ready(NOW_S + 0.5)
    health.record_probe(NOW_S + 1.0, succeeded=False)
    assert (False, 0, SHARE_MIN) == (health.is_ejected, health.failure_count, health.share(NOW_S + 0.5))


def test_a_share_grows_to_the_whole() -> None:
    """After SLOW_START_S a node is taken as any other, as is one that was never out."""
    health = ejected()
    health.record_probe(NOW_S, succeeded=True)
    shares = [health.share(NOW_S + after_s) for after_s in (0.0, SLOW_START_S / 2, SLOW_START_S, 99.0)]
    assert [SHARE_MIN, 0.5, 1.0, 1.0] == shares
    assert 1.0 == NodeHealth().share(0.0)


@given(st.lists(st.floats(0.0, 0.3), min_size=1, max_size=40))
def test_silence_after_another_has_answered_ejects(ticks_s: list[float]) -> None:
    """A node that owes what another has answered fails each LOST_SILENCE_S, until it says something."""
    health = NodeHealth()
    health.record_lost(NOW_S)
    counted_s = now_s = NOW_S
    failures = 0
    for tick_s in ticks_s:
        now_s += tick_s
        health.look(now_s)
        if now_s - counted_s >= LOST_SILENCE_S:
            counted_s, failures = now_s, failures + 1
        assert failures == health.failure_count
    assert (failures > 0, failures >= FAILURE_COUNT_MAX) == (health.is_silent, health.is_ejected)
    health.record_success()
    health.look(now_s + 99.0)
    assert not health.is_silent
    assert health.failure_count in (0, failures)


def test_the_first_loss_is_the_one_that_counts() -> None:
    """A node that is asked again and again is not silent for a shorter time because of that."""
    health = NodeHealth()
    health.record_lost(NOW_S)
    health.record_lost(NOW_S + LOST_SILENCE_S / 2)
    health.look(NOW_S + LOST_SILENCE_S)
    assert 1 == health.failure_count


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


def test_a_failed_probe_is_made_again_after_a_second() -> None:
    """However long a node is gone, it is found within EJECTION_S of its return, and is out for longer
    only if it fails again."""
    health, now_s = ejected(), NOW_S
    for _ in range(70):
        assert pytest.approx(EJECTION_S) == health.probe_at_s - now_s
        now_s = health.probe_at_s
        health.record_probe(now_s, succeeded=False)
        assert health.is_ejected
    health.record_probe(now_s, succeeded=True)
    health.record_failure(now_s)
    assert pytest.approx(2 * EJECTION_S) == health.probe_at_s - now_s


def test_taken_back_a_node_has_one_failure_left() -> None:
    """A successful probe takes a node back; its next failure ejects it, for longer than before."""
    health = ejected()
    health.record_probe(NOW_S + 1, succeeded=True)
    was_ejected = health.is_ejected
    health.record_failure(NOW_S + 2)
    assert (False, True) == (was_ejected, health.is_ejected)
    assert NOW_S + 2 + 2 * EJECTION_S == health.probe_at_s


def test_who_fails_again_soon_is_out_for_longer() -> None:
    """Answers between ejections do not count, time does: in for long enough, a node starts afresh."""
    health, now_s, out_s = ejected(), NOW_S, []
    for in_s in (1.0, 5.0, FORGIVEN_S - 0.1, FORGIVEN_S, 1.0):
        out_s.append(health.probe_at_s - now_s)
        health.record_probe(health.probe_at_s, succeeded=True)
        health.record_success()
        now_s = health.probe_at_s + in_s
        for _ in range(FAILURE_COUNT_MAX):
            assert not health.is_ejected
            health.record_failure(now_s)
    assert pytest.approx([1.0, 2.0, 3.0, 4.0, 1.0]) == out_s
