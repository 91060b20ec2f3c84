"""Scores of rows, against the oracle, and that a row has the same score wherever it is scored."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.metric import Metric
from shard_server.scoring import row_lengths, score_rows, unit_rows
from tests.kit import oracle
from tests.unit.nasty_rows import nasty_queries, nasty_rows

Rows = npt.NDArray[np.float32]

METRICS = list(Metric)
seeds = st.integers(0, 2**32 - 1)


def kept(metric: Metric, rows: Rows) -> Rows:
    """Rows as a release of this metric keeps them."""
    return unit_rows(rows) if metric is Metric.COSINE else rows


def bits(scores: npt.NDArray[np.float32]) -> list[int]:
    return np.ascontiguousarray(scores).view(np.uint32).ravel().tolist()


@pytest.mark.parametrize("metric", METRICS)
@given(seed=seeds)
def test_scores_are_those_of_the_oracle(metric: Metric, seed: int) -> None:
    """Duplicates, zeros, norms from 1e-20 to 1e18: each score is the oracle's, to the last bit."""
    rows, queries = nasty_rows(seed), nasty_queries(seed)
    scores = score_rows(metric, kept(metric, rows), queries[:, None])
    assert np.float32 == scores.dtype
    expected = [oracle.scores(metric.value, rows, query) for query in queries]
    assert expected == scores.tolist()


@pytest.mark.parametrize("metric", METRICS)
@given(seed=seeds, data=st.data())
def test_a_score_does_not_depend_on_its_batch(metric: Metric, seed: int, data: st.DataObject) -> None:
    """A row alone, among others, in any order, for one query or many, has the same bits."""
    rows, queries = kept(metric, nasty_rows(seed)), nasty_queries(seed)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=30)))
    alone = [
        [int(score_rows(metric, rows[row], query).view(np.uint32)) for row in chosen]
        for query in queries
    ]
    flat = [each for scores in alone for each in scores]
    assert flat == bits(score_rows(metric, rows[chosen], queries[:, None]))
    assert flat == bits(score_rows(metric, rows[np.tile(chosen, (len(queries), 1))], queries[:, None]))
    assert alone == [bits(score_rows(metric, rows[chosen], query)) for query in queries]


@pytest.mark.parametrize("metric", METRICS)
@given(seed=seeds)
def test_scores_are_finite_and_never_minus_zero(metric: Metric, seed: int) -> None:
    """What float32 cannot hold saturates, and -0 becomes 0, so equal scores are equal bits."""
    scores = score_rows(metric, kept(metric, nasty_rows(seed)), nasty_queries(seed)[:, None])
    assert np.isfinite(scores).all()
    assert not np.signbit(scores[scores == 0]).any()


def test_what_float32_cannot_hold_saturates() -> None:
    """Too long a distance scores the least number of float32, too large a product the largest."""
    far = np.array([[1.8e19, 0], [-1.8e19, 0]], np.float32)
    least = -oracle.FLOAT32_MAX
    assert [0.0, least] == score_rows(Metric.L2, far, far[0]).tolist()
    huge = np.array([[3e38, 3e38]], np.float32)
    assert [-least] == score_rows(Metric.INNER_PRODUCT, huge, huge[0]).tolist()


def test_zero_vectors_are_near_to_nothing() -> None:
    """Cosine with a zero vector, on either side or both, is 0."""
    rows = np.array([[0, 0], [1, 0]], np.float32)
    assert [[0, 0], [0, 1]] == score_rows(Metric.COSINE, rows, rows[:, None]).tolist()


def test_cosine_stays_in_its_bounds() -> None:
    """A cosine is never over 1, nor under -1, whatever rounding did to the unit rows."""
    rows = unit_rows(np.random.default_rng(1).standard_normal((500, 7)).astype(np.float32))
    scores = score_rows(Metric.COSINE, rows, rows * np.float32(3))
    assert 1.0 == scores.max()
    assert -1.0 == score_rows(Metric.COSINE, rows, -rows).min()


@given(seeds)
def test_unit_rows_have_length_1_or_0(seed: int) -> None:
    """Every row but the zero row gets length 1, from 1e-20 to 1e18, and row_lengths says so."""
    rows = nasty_rows(seed)
    lengths = np.sqrt(np.square(rows.astype(np.float64)).sum(axis=1))
    assert lengths.astype(np.float32).tolist() == row_lengths(rows).tolist()
    expected = np.where(lengths > 0, 1.0, 0.0)
    np.testing.assert_allclose(row_lengths(unit_rows(rows)), expected, rtol=1e-6)
