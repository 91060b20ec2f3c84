"""What a ranker's answer is worth, and what is asked of which ranker."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.errors import InvalidRanking
from router.ranking import CALL_S, RankingPace, in_order, less_busy, places_of, require_ranking

KEYS = st.lists(st.integers(0, 50), unique=True, min_size=1, max_size=20)


def judge(
    places: list[int], scores: list[float], scored: int, *, asked: int = 6, wanted: int = 4
) -> None:
    require_ranking(np.array(places, np.int64), np.array(scores, np.float32), scored, asked, wanted)


NAN = float("nan")


@pytest.mark.parametrize(
    ("places", "scores", "scored"),
    [
        ([3, 0, 5, 1], [0.5, 0.5, -1.0, -2.0], 6),
        ([3, 0, 5, 1], [0.5, 0.25, -1.0, -2.0], 4),
        ([3, 0, 1, 2], [0.5, 0.25, NAN, NAN], 2),
        ([0, 1, 2, 3], [NAN, NAN, NAN, NAN], 0),
    ],
)
def test_a_right_ranking_passes(places: list[int], scores: list[float], scored: int) -> None:
    """All scored, only as many as are wanted, some, and none."""
    judge(places, scores, scored)


@pytest.mark.parametrize(
    ("places", "scores", "scored"),
    [
        ([3, 0, 5], [3.0, 2.0, 1.0], 6),
        ([3, 0, 5, 1, 2], [5.0, 4.0, 3.0, 2.0, 1.0], 6),
        ([3, 0, 5, 1], [3.0, 2.0, 1.0], 6),
        ([3, 0, -1, 1], [4.0, 3.0, 2.0, 1.0], 6),
        ([3, 0, 3, 1], [4.0, 3.0, 2.0, 1.0], 6),
        ([3, 0, 5, 1], [4.0, 3.0, 2.0, 1.0], 7),
        ([3, 0, 5, 1], [4.0, 3.0, 2.0, 1.0], -1),
        ([3, 0, 5, 1], [4.0, NAN, 2.0, 1.0], 6),
        ([3, 0, 5, 1], [4.0, 3.0, NAN, NAN], 3),
        ([3, 0, 5, 1], [float("inf"), 3.0, 2.0, 1.0], 6),
        ([3, 0, 5, 1], [4.0, 3.0, 3.5, 1.0], 6),
    ],
)
def test_nonsense_is_refused(places: list[int], scores: list[float], scored: int) -> None:
    """Wrong lengths, strangers, repeats, impossible counts, scores that are none, and disorder."""
    with pytest.raises(InvalidRanking):
        judge(places, scores, scored)


@given(st.integers(0, 12), st.integers(1, 15), st.randoms())
def test_ranked_items_come_first_then_the_others_as_retrieved(
    candidate_count: int, item_count: int, random: "st.DataObject | object"
) -> None:
    """The ranked ones in their order, then all others ascending, cut to what is wanted."""
    places = list(range(candidate_count))
    random.shuffle(places)  # type: ignore[union-attr]
    ranked = places[: candidate_count // 2]
    wanted = [*ranked, *sorted(set(range(candidate_count)) - set(ranked))][:item_count]
    found = in_order(np.array(ranked, np.int64), candidate_count, item_count)
    assert wanted == found.tolist()


@given(KEYS, st.lists(st.integers(0, 60), max_size=10))
def test_ids_are_found_among_candidates(candidates: list[int], keys: list[int]) -> None:
    """At their places; -1 where they are none."""
    wanted = [candidates.index(key) if key in candidates else -1 for key in keys]
    found = places_of(np.array(keys, np.int64), np.array(candidates, np.int64))
    assert wanted == found.tolist()


def test_of_two_random_rankers_the_less_busy_is_asked() -> None:
    """Every ranker has its turn; of a pair the busier is the second choice; one alone is the only."""
    in_flight = {"a": 5, "b": 0, "c": 3}
    pairs = [less_busy(in_flight, number / 100) for number in range(100)]
    assert {("b", "a"), ("b", "c"), ("c", "a")} == {tuple(pair) for pair in pairs}
    assert max(Counter(tuple(pair) for pair in pairs).values()) < 40
    assert [["a"], []] == [less_busy({"a": 9}, 0.99), less_busy({}, 0.5)]


@given(st.floats(0, 0.5), st.floats(1e-7, 1e-3))
def test_no_more_is_asked_than_the_time_allows(left_s: float, each_s: float) -> None:
    """What the pace lets through takes no longer than is left, as lately measured."""
    count = RankingPace(each_s).count_in(left_s)
    assert count >= 0
    assert not count or CALL_S + count * each_s <= left_s + 1e-9


def test_the_pace_follows_what_is_measured() -> None:
    """A ranker that became slow is asked for less, one that is quick again for as much as before."""
    pace = RankingPace()
    at_first = pace.count_in(0.1)
    for _ in range(50):
        pace.record(500, 0.1)
    slow = pace.count_in(0.1)
    for _ in range(100):
        pace.record(slow, CALL_S + slow * 1e-6)
    assert at_first > 10_000
    assert 450 < slow < 600
    assert pace.count_in(0.1) > at_first


def test_the_pace_survives_small_lists() -> None:
    """Lists of none or one, answered at once or late, leave a pace that lets whole lists through."""
    for took_s in (0.0005, 0.02):
        pace = RankingPace()
        for count in (0, 1) * 50:
            pace.record(count, took_s)
        assert pace.count_in(0.1) > 1_000
