"""The one function that gives an item its final score, from its raw row. Pure.

Every answer is scored here, row by row in float64 and rounded once to float32, so searches through an
index, exact ones, single ones and batches agree bit for bit on one kind of processor. (Between kinds
the last bit of the float64 sum may differ; rounding to float32 hides that but for one case in 10^7.)
"""

import numpy as np
import numpy.typing as npt

from rangefinder.merge import Scores
from rangefinder.metric import Metric

Rows = npt.NDArray[np.float32]  # Shape (..., dimension).

_SCORE_MAX = float(np.finfo(np.float32).max)


def score_rows(metric: Metric, rows: Rows, queries: Rows) -> Scores:
    """Similarity of rows and queries, whose shapes broadcast but for the last axis, which goes.

    Rows of a cosine release have unit length or are zero; queries may have any. What float32 cannot
    hold saturates, so a score is always finite; -0 becomes 0.
    """
    # Few calls, and none of np.clip, which makes several: this is done for every search.
    if metric is Metric.L2:
        difference = np.subtract(rows, queries, dtype=np.float64)
        scores = np.maximum(0.0 - np.vecdot(difference, difference), -_SCORE_MAX)
    else:
        scores = _products(metric, rows, queries)
    final: Scores = scores.astype(np.float32)
    return final


def _products(metric: Metric, rows: Rows, queries: Rows) -> npt.NDArray[np.float64]:
    """Inner products, for cosine by the length of the query, within what float32 holds."""
    right = queries.astype(np.float64)
    products, most = np.vecdot(rows.astype(np.float64), right), _SCORE_MAX
    if metric is Metric.COSINE:
        products, most = products / _lengths(right), 1.0
    scores: npt.NDArray[np.float64] = np.minimum(np.maximum(products, -most), most) + 0.0
    return scores


def unit_rows(rows: Rows) -> Rows:
    """Rows scaled to length 1; zero rows stay zero."""
    wide = rows.astype(np.float64)
    scaled: Rows = (wide / _lengths(wide)[..., None]).astype(np.float32)
    return scaled


def row_lengths(rows: Rows) -> npt.NDArray[np.float32]:
    """The Euclidean length of each row."""
    wide = rows.astype(np.float64)
    lengths: npt.NDArray[np.float32] = np.sqrt(np.vecdot(wide, wide)).astype(np.float32)
    return lengths


def _lengths(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Lengths of rows; 1 for zero rows, so that dividing by them changes nothing."""
    lengths = np.sqrt(np.vecdot(rows, rows))
    return np.where(lengths > 0, lengths, 1.0)
