"""Merging of what several searches found. Used by nodes over shards and by routers over nodes. Pure.

Order is score descending, then key ascending; a key counts once. So the same hits in any grouping and
any order of arrival give the same answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rangefinder.keys import Keys

Scores = npt.NDArray[np.float32]
NO_SCORE = np.float32(-np.inf)  # Of padding; every real score is finite.


@dataclass(frozen=True, slots=True)
class Hits:
    """What was found for several queries: two matrices of one shape, best first in each row.

    Rows are padded at their end: there `scores` is NO_SCORE and `keys` says nothing.
    """

    keys: Keys  # Shape (queries, hits).
    scores: Scores  # Shape (queries, hits).

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Hits of each query: shape (queries,)."""
        counts: npt.NDArray[np.int64] = (self.scores > NO_SCORE).sum(axis=1)
        return counts

    def count(self, query: int) -> int:
        """Hits of one query."""
        scores = self.scores[query]
        if not len(scores) or scores[-1] > NO_SCORE:
            return len(scores)
        return int(np.count_nonzero(scores > NO_SCORE))

    def rows(self, start: int, end: int) -> "Hits":
        """Those of some of the queries."""
        return Hits(self.keys[start:end], self.scores[start:end])


def no_hits(query_count: int) -> Hits:
    """What is found where nothing is there."""
    return Hits(np.empty((query_count, 0), np.uint64), np.empty((query_count, 0), np.float32))


def merge_hits(parts: Sequence[Hits], wanted: npt.NDArray[np.int64]) -> Hits:
    """The best of several parts: of query i at most wanted[i]. Parts answer the same queries."""
    if len(parts) == 1:
        return _cut(parts[0], wanted)
    keys = np.concatenate([part.keys for part in parts], axis=1)
    scores = np.concatenate([part.scores for part in parts], axis=1)
    hits = _sorted(keys, scores)
    is_repeated = hits.keys[:, 1:] == hits.keys[:, :-1]  # Equal keys have equal scores, so they meet.
    if is_repeated.any():  # Padding too: whatever its keys are, its score is NO_SCORE already.
        hits.scores[:, 1:][is_repeated] = NO_SCORE
        hits = _sorted(hits.keys, hits.scores)
    return _cut(hits, wanted)


def _sorted(keys: Keys, scores: Scores) -> Hits:
    # Parts are in order: a stable sort merges them, as lexsort, which sorts by key first, does not.
    order = np.argsort(-scores, axis=-1, kind="stable")
    descending = taken(scores, order)
    if (descending[:, 1:] == descending[:, :-1]).any():  # Keys decide.
        order = np.lexsort((keys, -scores), axis=-1)
        descending = taken(scores, order)
    return Hits(taken(keys, order), descending)


def taken(matrix: npt.NDArray[Any], order: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Row i of the matrix at the places of row i of `order`: half the time of take_along_axis."""
    if len(order) == 1:
        row: npt.NDArray[Any] = matrix[0].take(order)
        return row
    rows: npt.NDArray[Any] = matrix[np.arange(len(order))[:, None], order]
    return rows


def _cut(hits: Hits, wanted: npt.NDArray[np.int64]) -> Hits:
    most, width = int(wanted[0]) if len(wanted) == 1 else int(wanted.max(initial=0)), hits.keys.shape[1]
    keys, scores = hits.keys, hits.scores
    if most < width:
        keys, scores, width = keys[:, :most], scores[:, :most], most
    elif len(wanted) == 1:
        return hits
    if len(wanted) > 1 and (wanted < width).any():
        scores = np.where(np.arange(width) < wanted[:, None], scores, NO_SCORE)
    return Hits(keys, scores)
