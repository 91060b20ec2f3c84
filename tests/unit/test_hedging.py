"""When others are asked too, and whom; and what is still owed to a batch."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.cluster_map import Replica, Shard
from rangefinder.errors import (
    DeadlineSpent,
    Draining,
    Internal,
    InvalidRequest,
    MapChanged,
    NotReady,
    Overloaded,
    RangefinderError,
    ReleaseNotServed,
    ReplicaUnavailable,
    UnknownShard,
)
from router.attempts import Attempt, Attempts
from router.hedging import (
    HEDGE_S_MIN,
    RETRY_S_MIN,
    hedge_delay_s,
    is_given_up,
    is_of_the_node,
    look_again_s,
    may_retry,
    node_time_s,
    others_p95_s,
    queries_of,
    without,
)

SHARDS = ["s-0", "s-1", "s-2", "s-3"]

percentiles = st.one_of(st.just(0.0), st.floats(0.0001, 1.0))
parts = st.lists(st.sampled_from(SHARDS), unique=True, min_size=1)


@given(percentiles, percentiles, st.floats(0.0, 10.0))
def test_a_hedge_is_in_time(own_s: float, others_s: float, left_s: float) -> None:
    """It waits for 2 ms at least and a third of the time left at most, less where little is left."""
    delay_s = hedge_delay_s(own_s, others_s, left_s)
    assert min(HEDGE_S_MIN, left_s * 0.333) <= delay_s <= left_s * 0.334


def test_a_node_is_late_by_itself_or_by_others() -> None:
    """By its own 95th percentile, or where it is slow for long, by twice that of another."""
    delays_s = [hedge_delay_s(own_s, 0.005, 1.0) for own_s in (0.003, 0.008, 0.2, 0.0)]
    assert pytest.approx([0.003, 0.008, 0.01, 0.01]) == delays_s
    assert pytest.approx([0.2, 1 / 3]) == [hedge_delay_s(own_s, 0.0, 1.0) for own_s in (0.2, 0.0)]


@given(st.floats(HEDGE_S_MIN, 0.5), st.floats(3 * HEDGE_S_MIN, 10.0))
def test_who_had_no_hedge_is_looked_at_again(delay_s: float, allowed_s: float) -> None:
    """A few times, once of them at half-time, when a node that is silent is given up."""
    waited_s, looks_s = min(delay_s, allowed_s / 3), list[float]()
    while waited_s < allowed_s:
        looks_s.append(waited_s)
        waited_s += look_again_s(waited_s, allowed_s)
    given_up = [each for each in looks_s if is_given_up(each, allowed_s, is_silent=True)]
    assert len(looks_s) <= 20
    assert min(given_up) == pytest.approx(allowed_s / 2, abs=0.0011)
    assert not any(is_given_up(each, allowed_s, is_silent=False) for each in looks_s)


@given(st.floats(0.0, 10.0))
def test_a_node_has_less_time_than_is_left(left_s: float) -> None:
    """5 ms less, or a tenth where that is less: what it answers in its time is here in ours."""
    assert pytest.approx(max(left_s - 0.005, 0.9 * left_s)) == node_time_s(left_s)


def test_others_are_those_that_hold_a_shard() -> None:
    """The fastest that is usable, known, and holds one of the shards; not the node itself."""
    shards = [
        Shard(name=name, key_start=0, key_end=1, replicas=tuple(Replica(node=node) for node in nodes))
        for name, nodes in (("s-0", "ab"), ("s-1", "acd"))
    ]
    p95_s = {"a": 0.001, "b": 0.004, "c": 0.003, "d": 0.0, "z": 0.002}
    assert 0.003 == others_p95_s("a", shards, p95_s)
    assert 0.001 == others_p95_s("b", shards[:1], p95_s)
    assert 0.0 == others_p95_s("a", shards, {"a": 0.001, "d": 0.0})


def test_nobody_is_asked_twice() -> None:
    """Costs without those that were tried; the others keep theirs."""
    costs = {"a": 1.0, "b": 2.0}
    assert ({"b": 2.0}, 2) == (without(costs, ["a", "z"]), len(costs))


@pytest.mark.parametrize(
    ("error", "is_retried", "is_blamed"),
    [
        (ReplicaUnavailable("broken"), True, True),
        (NotReady("loading"), True, True),
        (Draining("going"), True, True),
        (MapChanged("epoch"), True, True),
        (ReleaseNotServed("release"), True, True),
        (UnknownShard("shard"), True, True),
        (Internal("bug"), False, True),
        (Overloaded("busy"), False, False),
        (DeadlineSpent("late"), False, False),
        (InvalidRequest("x", "y"), False, False),
    ],
)
def test_only_what_was_not_taken_is_retried(
    error: RangefinderError, is_retried: bool, is_blamed: bool
) -> None:
    """A node that could not take the work is UNAVAILABLE or goes by another map; all else would fail
    again, or add load. What any node would refuse is held against none."""
    assert is_retried == may_retry(error, 1.0)
    assert not may_retry(error, RETRY_S_MIN / 2)
    assert is_blamed == is_of_the_node(error)


@given(parts, st.integers(1, 1_024))
def test_a_hedge_costs_its_share_of_the_part(part: list[str], query_count: int) -> None:
    """All of a part costs its queries, some of its shards so much less, and never nothing."""
    assert query_count == queries_of(part, part, query_count)
    assert 1 <= queries_of(part[:1], part, query_count) <= query_count


@given(st.lists(parts, min_size=1, max_size=6), st.data())
def test_a_batch_is_over_when_nothing_more_can_come(
    asked: list[list[str]], data: st.DataObject
) -> None:
    """It is over exactly when each shard has an answer, or nobody is asked for it any more."""
    attempts = Attempts()
    for place, shards in enumerate(asked):
        assert place == attempts.add(f"node-{place}", shards, float(place), 0)
    under_way, answered = dict(enumerate(asked)), set[str]()
    while under_way:
        number = data.draw(st.sampled_from(sorted(under_way)))
        shards = under_way.pop(number)
        if data.draw(st.booleans()):
            is_news = attempts.answered(number, shards)
            assert bool(set(shards) - answered) == is_news
            answered |= set(shards)
        else:
            orphans = attempts.give_up(number)
            expected = {name for left in under_way.values() for name in left}
            assert set(shards) - answered - expected == set(orphans)
        assert sorted(under_way) == sorted(attempts.under_way)
        assert_state(attempts, under_way, answered)


def assert_state(
    attempts: Attempts, under_way: Mapping[int, Sequence[str]], answered: set[str]
) -> None:
    """What is owed is what was asked for and not answered; lost are those that owe nothing."""
    for number, shards in under_way.items():
        assert [name for name in shards if name not in answered] == attempts.owed(number)
    assert {number for number, shards in under_way.items() if answered >= set(shards)} == set(
        attempts.lost
    )
    assert all(answered >= set(shards) for shards in under_way.values()) == attempts.is_over


def test_all_who_were_asked_count_as_tried() -> None:
    """For a shard, whoever was asked for it, whatever became of that."""
    attempts = Attempts()
    attempts.add("a", ["s-0", "s-1"], 0.0, 0)
    attempts.add("b", ["s-2"], 0.0, 0)
    attempts.give_up(attempts.add("c", ["s-1"], 0.1, 2))
    assert [["a"], ["a", "c"], ["a", "b", "c"], []] == [
        attempts.tried_for(shards) for shards in (["s-0"], ["s-1"], ["s-1", "s-2"], ["s-3"])
    ]
    assert Attempt("c", ["s-1"], 0.1, 2) == attempts[2]
