"""Features of candidate lists: what they may depend on, and what they take where nothing is known."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker_service.features import (
    RETRIEVAL_RANK,
    VIEWS,
    CandidateColumns,
    Floats,
    feature_rows,
    known_features,
)

SOURCES, ITEM_FEATURES = ("index", "near"), ("age",)
NAMES = sorted(known_features(SOURCES, ITEM_FEATURES))
DEFAULTS = np.arange(100, 100 + len(NAMES), dtype=np.float32)
NAN = math.nan

SCORES = st.one_of(st.just(NAN), st.floats(width=32, allow_nan=False, allow_infinity=False))
ROWS = st.lists(st.tuples(SCORES, SCORES, SCORES), min_size=1, max_size=40)


def columns(rows: list[tuple[float, float, float]]) -> CandidateColumns:
    """Scores of two sources, then the item's age."""
    table = np.array(rows, np.float32).reshape(-1, 3)
    return CandidateColumns(
        sources=SOURCES,
        source_scores=table[:, :2],
        item_feature_names=ITEM_FEATURES,
        item_features=table[:, 2:],
    )


def features(rows: list[tuple[float, float, float]]) -> dict[str, list[float]]:
    """By name; NaN where the default was taken."""
    values = feature_rows(columns(rows), NAMES, np.full(len(NAMES), NAN, np.float32)).values
    return dict(zip(NAMES, values.T.tolist(), strict=True))


@given(ROWS)
def test_every_value_is_finite_and_every_absent_one_is_counted(
    rows: list[tuple[float, float, float]],
) -> None:
    """Whatever is scored, huge and tiny alike, the model meets finite values; defaults are counted."""
    found = feature_rows(columns(rows), NAMES, DEFAULTS)
    assert found.values.dtype == np.float32
    assert np.isfinite(found.values).all()
    without = feature_rows(columns(rows), NAMES, np.full(len(NAMES), NAN, np.float32)).values
    is_absent = np.isnan(without)
    assert is_absent.sum(axis=0).tolist() == found.default_counts.tolist()
    assert np.array_equal(np.where(is_absent, DEFAULTS, without), found.values)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_others_changes_nothing_but_the_rank_of_retrieval(
    rows: list[tuple[float, float, float]], random: Random
) -> None:
    """Candidates in another order have the same features, to the last digit, but for their place."""
    order = list(range(len(rows)))
    random.shuffle(order)
    before, after = features(rows), features([rows[place] for place in order])
    assert after.pop(RETRIEVAL_RANK) == before.pop(RETRIEVAL_RANK) == [*range(1, len(rows) + 1)]
    for name, values in before.items():
        shuffled = [values[place] for place in order]
        assert np.array_equal(shuffled, after[name], equal_nan=True), name


@given(ROWS, st.integers(-8, 8))
def test_a_longer_history_changes_no_feature_of_its_source(
    rows: list[tuple[float, float, float]], power: int
) -> None:
    """Scores that all grow by one factor, as with more history, leave every feature where it was."""
    scale = 2.0**power
    kept = [row for row in rows if all(math.isnan(s) or 1e-20 < abs(s) < 1e20 for s in row[:2])]
    grown = [(index * scale, near * scale, age) for index, near, age in kept]
    for name, values in features(kept).items():
        assert values == pytest.approx(features(grown)[name], rel=1e-5, nan_ok=True), name


def test_views_of_a_source_as_counted_by_hand() -> None:
    """Scores 4, 2, 2, 0 and one not proposed: each view."""
    found = features([(score, NAN, 7.0) for score in (2.0, 4.0, NAN, 0.0, 2.0)])
    assert repr([2.0, 1.0, NAN, 4.0, 2.0]) == repr(found["index.rank"])
    assert repr([0.5, 1.0, NAN, 0.0, 0.5]) == repr(found["index.relative"])
    assert repr([0.5, 1.0, NAN, 0.0, 0.5]) == repr(found["index.of_best"])
    assert [2 / math.sqrt(2), -2 / math.sqrt(2)] == pytest.approx(
        [found["index.standard"][1], found["index.standard"][3]]
    )
    assert [0.8] * 5 == pytest.approx(found["index.share"])
    assert [NAN] * 5 == pytest.approx(found["index.of_twentieth"], nan_ok=True)  # It is 0.
    assert [0.0] * 5 == found["near.share"]
    assert [7.0] * 5 == found["item.age"]
    for view in VIEWS[:-1]:
        assert [NAN] * 5 == pytest.approx(found[f"near.{view}"], nan_ok=True)


def test_the_twentieth_score_is_the_measure() -> None:
    """Of thirty scores 30 to 1, the twentieth is 11; of fewer than twenty, the last."""
    scores = [float(score) for score in range(30, 0, -1)]
    found = features([(score, score if score > 25 else NAN, 0.0) for score in scores])
    assert pytest.approx(30 / 11) == found["index.of_twentieth"][0]
    assert pytest.approx(30 / 26) == found["near.of_twentieth"][0]


@pytest.mark.parametrize("score", [1.0, -3e38, 1e-45, 0.0])
@pytest.mark.parametrize("count", [1, 7])
def test_candidates_all_alike_are_all_first(score: float, count: int) -> None:
    """One candidate, or several of one score: none is behind another, and nothing divides by zero."""
    found = features([(score, score, 0.0)] * count)
    assert [1.0] * count == found["index.rank"]
    assert [0.0] * count == found["index.standard"]
    assert [1.0] * count == found["index.relative"]
    expected = [1.0 if score > 0 else NAN] * count
    assert expected == pytest.approx(found["index.of_best"], nan_ok=True)


def test_no_candidates_have_no_features() -> None:
    """An empty list is no error."""
    found = feature_rows(columns([]), NAMES, DEFAULTS)
    assert (0, len(NAMES)) == found.values.shape


def test_a_source_that_is_not_there_is_all_default() -> None:
    """A model may read a source that this request lacks: defaults, counted; others are not read."""
    other: Floats = np.ones((3, 1), np.float32)
    found = feature_rows(
        CandidateColumns(
            sources=("strange",),
            source_scores=other,
            item_feature_names=(),
            item_features=np.empty((3, 0), np.float32),
        ),
        ["index.rank", "item.age", RETRIEVAL_RANK],
        np.array([5, 6, 7], np.float32),
    )
    assert [[5, 6, 1], [5, 6, 2], [5, 6, 3]] == found.values.tolist()
    assert [3, 3, 0] == found.default_counts.tolist()
