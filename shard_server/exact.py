"""Exact search over raw rows: the yardstick for recall, and the way out where an index cannot answer.

    1. one float32 matrix product a block gives every score within a proven bound
    2. rows whose upper bound lies under the k-th lower bound are out
    3. what is left is scored by scoring.score_rows, and ordered

The bound is that of a sum of n products in floating point, whatever its order: n·u/(1 - n·u) times the
sum of the magnitudes (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1). It
is taken twice, so that it also holds the rounding of the final score. Pure.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rangefinder.merge import NO_SCORE, Hits, Scores
from rangefinder.metric import Metric
from shard_server.scoring import Rows, row_lengths, score_rows

RowNumbers = npt.NDArray[np.int64]
Cells = tuple[npt.NDArray[np.int64], RowNumbers]  # Queries and rows.

# Approximate scores are taken of so many queries and rows at once that an array of them stays in the
# cache (1 MB), and leaves no holes in the heap of a node.
_BLOCK_ELEMENTS = 1 << 18
_BLOCK_ROWS_MIN, _BLOCK_ROWS_MAX = 1 << 12, 1 << 15
_UNIT_ROUNDOFF = 2.0**-24
_SCORE_MIN = np.finfo(np.float32).min

_NO_ROWS: RowNumbers = np.empty(0, np.int64)


class Candidates:
    """Rows that may be among the best of each query, with a bound of their scores from below."""

    def __init__(self, query_count: int, wanted: int) -> None:
        self._best = np.full((query_count, wanted), NO_SCORE)  # Lower bounds; of these, the least
        self._threshold = self._best[:, 0]  # is what an upper bound must reach.
        self._parts: list[tuple[RowNumbers, RowNumbers, Scores]] = []

    def add(self, first_row: int, lower: Scores, upper: Scores, excluded: Cells) -> None:
        """Take a block of bounds, shape (queries, rows), of the rows from first_row on."""
        np.copyto(lower, NO_SCORE, where=~np.isfinite(lower))
        lower[excluded] = NO_SCORE
        wanted, width = self._best.shape[1], lower.shape[1]
        if self._parts or width < wanted:  # Else it is the first, and enough.
            lower = np.concatenate([self._best, lower], axis=1)
        lower.partition(lower.shape[1] - wanted, axis=1)
        self._best = lower[:, lower.shape[1] - wanted :].copy()
        self._threshold = self._best[:, 0].copy()
        # Written so that a bound that is not a number stays in.
        is_candidate = ~(upper < self._threshold[:, None])
        is_candidate[excluded] = False
        query, row = np.nonzero(is_candidate)
        self._parts.append((query, row + first_row, upper[query, row]))

    def rows_of_queries(self) -> list[RowNumbers]:
        """For each query its candidates, ascending."""
        if len(self._parts) == len(self._threshold) == 1:
            return [self._parts[0][1]]
        query, row, upper = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        remain = ~(upper < self._threshold[query])
        query, row = query[remain], row[remain]
        order = np.argsort(query, kind="stable")
        ends = np.cumsum(np.bincount(query, minlength=len(self._threshold)))[:-1]
        return np.split(row[order], ends)


def search_exactly(
    metric: Metric,
    rows: Rows,
    lengths: npt.NDArray[np.float32],
    queries: Rows,
    wanted: int,
    excluded: Sequence[RowNumbers] = (),
    require_time_left: Callable[[], None] = lambda: None,
) -> tuple[list[RowNumbers], list[Scores]]:
    """Row numbers and scores of the `wanted` best rows of each query, best first, ties by row.

    rows: (n, dimension); lengths: (n,), of the rows; queries: (q, dimension). `excluded` is empty or
    holds row numbers for each query. `require_time_left` is called before each block and may raise.
    """
    if not len(rows) or not wanted:
        return [_NO_ROWS] * len(queries), [np.empty(0, np.float32)] * len(queries)
    block_rows = min(max(_BLOCK_ROWS_MIN, 4 * wanted), _BLOCK_ROWS_MAX)
    group = max(_BLOCK_ELEMENTS // block_rows, 1)
    found: list[tuple[RowNumbers, Scores]] = []
    for first in range(0, len(queries), group):
        some = queries[first : first + group]
        candidates = Candidates(len(some), wanted)
        step = min(max(_BLOCK_ELEMENTS // len(some), block_rows), _BLOCK_ROWS_MAX)
        for start in range(0, len(rows), step):
            require_time_left()
            block = slice(start, start + step)
            lower, upper = _bounds(metric, rows[block], lengths[block], some)
            cells = _cells(excluded[first : first + group], start, lower.shape[1])
            candidates.add(start, lower, upper, cells)
        found += [
            _best(metric, rows, query, row, wanted)
            for query, row in zip(some, candidates.rows_of_queries(), strict=True)
        ]
    return [row for row, _ in found], [scores for _, scores in found]


def _bounds(
    metric: Metric, rows: Rows, lengths: npt.NDArray[np.float32], queries: Rows
) -> tuple[Scores, Scores]:
    """What orders the rows, from below and above: (queries, rows) each. May hold inf and nan."""
    error = (rows.shape[1] + 4) * 2 * _UNIT_ROUNDOFF
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        near = queries @ rows.T
        slack = row_lengths(queries)[:, None] * lengths
        if metric is Metric.L2:
            # With the query's own square, which orders nothing: final scores are rounded to its size,
            # and rows that it rounds to one score are ordered by key.
            squares = lengths * lengths + np.square(row_lengths(queries))[:, None]
            near = 2 * near - squares
            slack = 2 * slack + squares
        slack *= np.float32(error)
        # What products too small for a normal number may have lost.
        slack += np.float32(rows.shape[1] * np.finfo(np.float32).tiny)
        lower, upper = near - slack, near + slack
        if metric is Metric.L2:  # The one whose scores saturate: all below is one score, too.
            np.maximum(lower, _SCORE_MIN, out=lower)
            np.maximum(upper, _SCORE_MIN, out=upper)
        return lower, upper


def _cells(excluded: Sequence[RowNumbers], first_row: int, row_count: int) -> Cells:
    """Where the excluded rows of each query stand in a block of rows."""
    here = [rows[(rows >= first_row) & (rows < first_row + row_count)] - first_row for rows in excluded]
    if len(here) == 1:
        return np.zeros(1, np.int64), here[0]
    query = np.repeat(np.arange(len(here)), [len(rows) for rows in here])
    return query, np.concatenate([_NO_ROWS, *here])


def _best(
    metric: Metric, rows: Rows, query: Rows, candidates: RowNumbers, wanted: int
) -> tuple[RowNumbers, Scores]:
    """The best of ascending candidates, ties by row."""
    parts = [
        score_rows(metric, rows[candidates[start : start + _BLOCK_ROWS_MAX]], query)
        for start in range(0, len(candidates), _BLOCK_ROWS_MAX)
    ]
    scores = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])
    order = np.argsort(-scores, kind="stable")[:wanted]
    return candidates[order], scores[order]


def as_hits(keys: npt.NDArray[np.uint64], rows: Sequence[RowNumbers], scores: Sequence[Scores]) -> Hits:
    """Rows found for each query as padded matrices; keys: (n,) of the segment."""
    if len(rows) == 1:
        return Hits(keys[rows[0]][None], scores[0][None])
    width = max((len(numbers) for numbers in rows), default=0)
    key_matrix = np.zeros((len(rows), width), np.uint64)
    score_matrix = np.full((len(rows), width), NO_SCORE)
    for query, numbers in enumerate(rows):
        key_matrix[query, : len(numbers)] = keys[numbers]
        score_matrix[query, : len(numbers)] = scores[query]
    return Hits(key_matrix, score_matrix)
