"""Merging, against Python's sorted() over pairs."""

from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefinder.merge import NO_SCORE, Hits, merge_hits, no_hits

Pair = tuple[int, float]  # Key and score.

# Few of each, so that ties and repeated keys are common; keys beyond 2^63 and scores of both signs.
KEYS = (0, 1, 2, 3, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)
SCORES = (-3.4028234663852886e38, -1.5, -1e-45, 0.0, 1e-45, 0.25, 1.0, 3.4028234663852886e38)


@dataclass(frozen=True, slots=True)
class Case:
    """What several searches found for the same queries, and how many items each query wants."""

    parts: list[list[list[Pair]]]  # By part, by query.
    wanted: list[int]

    @property
    def truth(self) -> list[list[Pair]]:
        """The oracle: all pairs of a query, each key once, in the order of the documents."""
        return [
            sorted(
                {pair for part in self.parts for pair in part[query]},
                key=lambda pair: (-pair[1], pair[0]),
            )[:wanted]
            for query, wanted in enumerate(self.wanted)
        ]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Parts of sorted pairs; a key has one score, whoever reports it."""
    query_count = draw(st.integers(1, 4))
    score_of = [
        dict(zip(KEYS, draw(st.tuples(*[st.sampled_from(SCORES)] * len(KEYS))), strict=True))
        for _ in range(query_count)
    ]
    parts = [
        [
            sorted(
                ((key, scores[key]) for key in draw(st.sets(st.sampled_from(KEYS)))),
                key=lambda pair: (-pair[1], pair[0]),
            )
            for scores in score_of
        ]
        for _ in range(draw(st.integers(1, 5)))
    ]
    return Case(parts, draw(st.lists(st.integers(0, 10), min_size=query_count, max_size=query_count)))


def hits_of(part: list[list[Pair]], padding: int = 0) -> Hits:
    """One part as padded matrices; what pads the keys means nothing, so it looks like a key."""
    width = max(len(pairs) for pairs in part) + padding
    keys = np.full((len(part), width), KEYS[-1], np.uint64)
    scores = np.full((len(part), width), NO_SCORE)
    for query, pairs in enumerate(part):
        keys[query, : len(pairs)] = [key for key, _ in pairs]
        scores[query, : len(pairs)] = [score for _, score in pairs]
    return Hits(keys, scores)


def pairs_of(hits: Hits) -> list[list[Pair]]:
    """The pairs of each query; the padding must stand at the end."""
    pairs = []
    for keys, scores, count in zip(
        hits.keys.tolist(), hits.scores.tolist(), hits.counts.tolist(), strict=True
    ):
        assert [float("-inf")] * (len(scores) - count) == scores[count:]
        pairs.append(list(zip(keys[:count], scores[:count], strict=True)))
    return pairs


def column(counts: list[int]) -> npt.NDArray[np.int64]:
    return np.array(counts, np.int64)


def rounded(pairs: list[list[Pair]]) -> list[list[Pair]]:
    """As float32 holds them."""
    return [[(key, float(np.float32(score))) for key, score in each] for each in pairs]


@given(cases(), st.integers(0, 3))
def test_the_best_of_all_parts(case: Case, padding: int) -> None:
    """Score descending, then key ascending, each key once, as many as each query wants."""
    merged = merge_hits([hits_of(part, padding) for part in case.parts], column(case.wanted))
    assert rounded(case.truth) == pairs_of(merged)


@given(cases(), st.randoms(use_true_random=False), st.data())
def test_grouping_and_order_change_nothing(case: Case, random: Random, draw: st.DataObject) -> None:
    """Parts merged in any order, in groups first or all at once, give the same bits."""
    parts = [hits_of(part) for part in case.parts]
    wanted = column(case.wanted)
    order = list(parts)
    random.shuffle(order)
    cut = draw.draw(st.integers(0, len(order)))
    groups = [group for group in (order[:cut], order[cut:]) if group]
    nested = merge_hits([merge_hits(group, wanted) for group in groups], wanted)
    assert pairs_of(merge_hits(parts, wanted)) == pairs_of(nested)


@given(cases())
def test_merging_leaves_its_parts_as_they_are(case: Case) -> None:
    """What is merged is not changed: another thread may read it."""
    parts = [hits_of(part) for part in case.parts]
    merge_hits(parts, column(case.wanted))
    assert [rounded(part) for part in case.parts] == [pairs_of(part) for part in parts]


def test_equal_scores_are_ordered_by_key_across_parts() -> None:
    """Of equal scores the smaller key comes first, whichever part it is in; keys are unsigned."""
    parts = [hits_of([[(2**63, 1.0)]]), hits_of([[(5, 1.0)]]), hits_of([[(2**64 - 1, 1.0)]])]
    assert [[(5, 1.0), (2**63, 1.0)]] == pairs_of(merge_hits(parts, column([2])))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_key_counts_once(count: int) -> None:
    """A key that every part reports takes one place, and leaves the others to the next ones."""
    parts = [hits_of([[(7, 2.0), (8, 1.0), (9, 0.5)]])] * count
    assert [[(7, 2.0), (8, 1.0), (9, 0.5)]] == pairs_of(merge_hits(parts, column([3])))


@example([], 1)
@given(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 3))
def test_nothing_found_is_an_answer(widths: list[int], query_count: int) -> None:
    """Parts without hits, of any width, merge into no hits; beside others they change nothing."""
    empty = [
        Hits(np.zeros((query_count, width), np.uint64), np.full((query_count, width), NO_SCORE))
        for width in widths
    ]
    wanted = column([5] * query_count)
    merged = merge_hits([*empty, no_hits(query_count)], wanted)
    assert [[]] * query_count == pairs_of(merged)
    found = hits_of([[(3, 0.5)]] * query_count)
    assert [[(3, 0.5)]] * query_count == pairs_of(merge_hits([*empty, found, *empty], wanted))


def test_a_single_part_is_cut_too() -> None:
    """A query gets no more than it wants, also where there is nothing to merge."""
    part = hits_of([[(1, 3.0), (2, 2.0)], [(1, 3.0), (2, 2.0)], [(4, 1.0)]])
    merged = merge_hits([part], column([1, 0, 9]))
    assert [[(1, 3.0)], [], [(4, 1.0)]] == pairs_of(merged)
    assert [1, 0, 1] == merged.counts.tolist()


def test_rows_are_those_of_some_queries() -> None:
    """`rows` cuts out the hits of consecutive queries."""
    part = hits_of([[(1, 3.0)], [(2, 2.0)], [(4, 1.0)]])
    assert [[(2, 2.0)], [(4, 1.0)]] == pairs_of(part.rows(1, 3))
