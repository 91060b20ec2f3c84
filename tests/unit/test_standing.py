"""When a client leaves a router out, and when it takes it back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.client.standing import (
    PROBE_DELAY_S_MAX,
    PROBE_DELAY_S_MIN,
    SILENCE_S,
    SILENT_COUNT_MAX,
    Standing,
)


def test_a_router_that_is_not_there_is_left_out_at_once() -> None:
    """One absence is enough, and is news once: many requests may find it out together."""
    standing = Standing()
    assert [True, False, False] == [standing.record_absence() for _ in range(3)]
    assert standing.is_away


@given(st.lists(st.sampled_from(["answer", "silence", "short"]), max_size=30))
def test_three_silences_in_a_row_count_as_absence(events: list[str]) -> None:
    """A router is left out when it let three deadlines of at least 0.1 s pass with no word between;
    shorter deadlines neither count nor break the row."""
    standing, in_a_row = Standing(), 0
    for event in events:
        was_away, is_news = standing.is_away, False
        if event == "answer":
            standing.record_answer()
            in_a_row = 0
        else:
            is_news = standing.record_silence(SILENCE_S if event == "silence" else SILENCE_S / 2)
            in_a_row += event == "silence"
        expected = was_away or in_a_row >= SILENT_COUNT_MAX
        assert (expected, expected and not was_away) == (standing.is_away, is_news)


def test_only_a_probe_brings_a_router_back() -> None:
    """What a draining router still answers does not; a probe that finds it ready does, and then it
    takes three silences again."""
    standing = Standing()
    standing.record_absence()
    standing.record_answer()
    was_away = standing.is_away
    standing.record_return()
    assert (True, False) == (was_away, standing.is_away)
    assert [False, False, True] == [standing.record_silence(SILENCE_S) for _ in range(3)]


def test_probes_are_further_and_further_apart() -> None:
    """Each wait is twice the one before, up to five seconds; also for a router whose probe succeeds,
    but which then never answers."""
    standing, waits_s = Standing(), []
    for number in range(200):
        standing.record_absence()
        waits_s.append(standing.next_probe_s())
        if number % 2:
            standing.record_return()
    expected = [min(PROBE_DELAY_S_MIN * 2.0**count, PROBE_DELAY_S_MAX) for count in range(200)]
    assert pytest.approx(expected) == waits_s


def test_an_answer_makes_a_router_as_good_as_new() -> None:
    """Taken back, it answers: the next probe, should there be one, is soon."""
    standing = Standing()
    standing.record_absence()
    for _ in range(5):
        standing.next_probe_s()
    standing.record_return()
    standing.record_answer()
    assert Standing() == standing
    assert PROBE_DELAY_S_MIN == standing.next_probe_s()
