"""Items that the same users had: of each item the most similar ones, counted in blocks.

How similar `other` is to an item is a weighted count of the users who had both,

    sum over these users of 1 / history length   /   weight(other) ^ penalty

where weight(other) is the same sum over all who had `other`: short histories say more than long ones,
and the penalty keeps popular items from being near everything. The scores of an item's neighbours are
scaled to a sum of 1: every item of a history has the same say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from training.best import best_places
from training.histories import Histories
from training.interactions import Interactions

NEIGHBOUR_COUNT = 64
HISTORY_MAX = 512  # Items of a user that count, the newest: pairs grow with the square.

Weights = npt.NDArray[np.float32]

_BLOCK_PAIRS = 20_000_000  # Co-occurrences in memory at once, before equal ones are added up.


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Columns of item_tables.py: -1 and 0 pad."""

    places: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]

    @classmethod
    def none(cls, item_count: int, count: int) -> "Neighbours":
        shape = (item_count, count)
        return cls(np.full(shape, -1, np.int32), np.zeros(shape, np.float32))


def neighbours_of(
    interactions: Interactions, penalties: Sequence[float], count: int = NEIGHBOUR_COUNT
) -> list[Neighbours]:
    """The neighbours of every item, once for each penalty."""
    had, weighted = recent_matrices(interactions)
    weights = np.asarray(weighted.sum(axis=0)).ravel()
    # An item that nobody had is in no product: any divisor will do.
    weights = np.where(weights > 0, weights, 1).astype(np.float32)
    found = [Neighbours.none(had.shape[1], count) for _ in penalties]
    by_item = had.T.tocsr()
    for rows in _blocks(had):
        block = by_item[rows] @ weighted
        block.sort_indices()
        for neighbours, penalty in zip(found, penalties, strict=True):
            _fill(neighbours, rows, block, (weights**-penalty).astype(np.float32))
    return found


def _fill(neighbours: Neighbours, rows: slice, block: csr_matrix, factors: Weights) -> None:
    """Set the best of each row: of equal ones the first places, scores adding up to 1."""
    similarity = block.data * factors[block.indices]
    count = neighbours.places.shape[1]
    for number, item in enumerate(range(rows.start, rows.stop)):
        span = slice(block.indptr[number], block.indptr[number + 1])
        places, scores = block.indices[span], similarity[span]
        scores[places == item] = -np.inf
        best = best_places(scores, count)
        if len(best):
            neighbours.places[item, : len(best)] = places[best]
            neighbours.scores[item, : len(best)] = scores[best] / scores[best].sum()


def recent_matrices(interactions: Interactions) -> tuple[csr_matrix, csr_matrix]:
    """Users by items, of at most HISTORY_MAX items a user: ones, and 1 / history length."""
    histories = Histories.of_interactions(interactions)
    counts = np.diff(histories.ends, prepend=0)
    age = np.arange(len(interactions)) - np.repeat(histories.ends - counts, counts)
    kept = age < HISTORY_MAX
    ends = np.cumsum(np.minimum(counts, HISTORY_MAX))
    shape = (interactions.user_count, interactions.item_count)
    items, indptr = histories.items[kept], np.concatenate([[0], ends])
    shares = np.repeat(1 / np.maximum(counts, 1), np.minimum(counts, HISTORY_MAX)).astype(np.float32)
    ones = csr_matrix((np.ones(len(items), np.float32), items, indptr), shape=shape)
    return ones, csr_matrix((shares, items, indptr), shape=shape)


def _blocks(had: csr_matrix) -> Iterator[slice]:
    """Runs of items with about _BLOCK_PAIRS co-occurrences each."""
    lengths = np.diff(had.indptr)
    pairs = np.bincount(had.indices, np.repeat(lengths, lengths), had.shape[1])
    block_of = np.cumsum(pairs) // _BLOCK_PAIRS
    starts = np.flatnonzero(np.diff(block_of, prepend=-1)).tolist()
    for start, end in zip(starts, [*starts[1:], had.shape[1]], strict=True):
        yield slice(start, end)
