"""Candidates of several sources: merged as an oracle without NumPy merges them."""

import math
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rangefinder import candidates
from rangefinder.candidates import Proposals, is_among, merge_candidates, similar_items

KEYS = st.lists(st.integers(0, 30), unique=True, max_size=12)
SOURCES = st.lists(st.tuples(KEYS, st.sampled_from([0.1, 1.0, 2.0])), max_size=4)


def proposals(sources: list[tuple[list[int], float]]) -> list[Proposals]:
    """Scores fall by one from source to source and from rank to rank."""
    return [
        Proposals(
            f"source-{place}",
            np.array(keys, np.uint64),
            np.array([-float(place + rank) for rank in range(len(keys))], np.float32),
            weight,
        )
        for place, (keys, weight) in enumerate(sources)
    ]


@given(SOURCES, st.integers(0, 40))
def test_the_merged_list_is_that_of_reciprocal_ranks(
    sources: list[tuple[list[int], float]], count: int
) -> None:
    """Keys come once, by the sum of weight / (60 + rank), then by key; every source's word is kept."""
    merged = merge_candidates(proposals(sources), count)

    totals: dict[int, float] = {}
    for keys, weight in sources:
        for rank, key in enumerate(keys, start=1):
            totals[key] = totals.get(key, 0.0) + weight / (60 + rank)
    expected = sorted(totals, key=lambda key: (-totals[key], key))[:count]
    assert expected == merged.keys.tolist()
    for row, key in enumerate(expected):
        assert math.isclose(totals[key], float(merged.scores[row]), rel_tol=1e-6)
        for column, (keys, _) in enumerate(sources):
            rank = keys.index(key) + 1 if key in keys else 0
            assert rank == merged.source_ranks[row, column]
            score = float(merged.source_scores[row, column])
            assert score == -float(column + rank - 1) if rank else math.isnan(score)


@given(
    st.lists(st.lists(st.integers(-1, 9), min_size=3, max_size=3), min_size=10, max_size=10),
    st.lists(st.integers(0, 9), max_size=5),
    st.sets(st.integers(0, 9), max_size=4),
    st.integers(0, 12),
    st.sampled_from([0, 1_000]),
)
def test_similar_items_add_up_over_the_seeds(
    neighbours: list[list[int]],
    seeds: list[int],
    excluded: set[int],
    count: int,
    dense_factor: int,
) -> None:
    """A place scores the sum of its similarities to the seeds; excluded places and pads never come.
    It makes no difference whether sums are kept of all places or of those found."""
    similarities = [[0.5, 0.25, 0.125] for _ in neighbours]
    with patch.object(candidates, "_DENSE_FACTOR", dense_factor):
        places, scores = similar_items(
            np.array(neighbours, np.int32),
            np.array(similarities, np.float32),
            np.array(seeds, np.int64),
            np.array(sorted(excluded), np.int64),
            count,
        )

    totals: dict[int, float] = {}
    for seed in seeds:
        for place, similarity in zip(neighbours[seed], similarities[seed], strict=True):
            if place >= 0 and place not in excluded:
                totals[place] = totals.get(place, 0.0) + similarity
    expected = sorted(totals, key=lambda place: (-totals[place], place))[:count]
    assert expected == places.tolist()
    assert [totals[place] for place in expected] == scores.tolist()


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=30), st.sets(st.integers(0, 2**64 - 1), max_size=20)
)
def test_membership_is_that_of_a_set(values: list[int], others: set[int]) -> None:
    """Whatever is looked for, and whether there is anything to look in or not."""
    values += sorted(others)[:3]
    found = is_among(np.array(values, np.uint64), np.array(sorted(others), np.uint64))
    assert [value in others for value in values] == found.tolist()
