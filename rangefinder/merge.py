"""Merging of what several searches found. Used by nodes over shards and by routers over nodes. Pure.

Order is score descending, then key ascending; a key counts once. So the same hits in any grouping and
any order of arrival give the same answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
        counts: npt.NDArray[np.int64] = np.count_nonzero(self.scores > NO_SCORE, axis=1)
        return counts

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
    repeated = (hits.keys[:, 1:] == hits.keys[:, :-1]) & (hits.scores[:, 1:] > NO_SCORE)
    if repeated.any():
        hits.scores[:, 1:][repeated] = NO_SCORE
        hits = _sorted(hits.keys, hits.scores)
    return _cut(hits, wanted)


def _sorted(keys: Keys, scores: Scores) -> Hits:
    order = np.lexsort((keys, -scores), axis=-1)
    row = np.arange(len(order))[:, None]  # Half the time of take_along_axis.
    return Hits(keys[row, order], scores[row, order])


def _cut(hits: Hits, wanted: npt.NDArray[np.int64]) -> Hits:
    width = min(int(wanted.max(initial=0)), hits.keys.shape[1])
    keys, scores = hits.keys[:, :width], hits.scores[:, :width]
    if (wanted < width).any():
        scores = np.where(np.arange(width) < wanted[:, None], scores, NO_SCORE)
    return Hits(keys, scores)
