"""The best of many scores, and what embeddings think best for users. Pure, in blocks."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from training.histories import Histories

Scores = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

_BLOCK_SCORES = 1 << 24  # 64 MiB of float32.


def best_places(scores: Scores, count: int) -> Places:
    """Places of the `count` greatest, best first; of equal ones the first. Never those of -infinity."""
    if len(scores) > count > 0:
        bound = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= bound)
    else:
        places = np.arange(len(scores))
    best = places[np.argsort(-scores[places], kind="stable")[:count]]
    return best[scores[best] > -np.inf]


def best_items(
    users: Scores, items: Scores, histories: Histories, rows: Places, count: int
) -> Iterator[tuple[Places, Scores]]:
    """For each user of `rows` the items of greatest inner product, without what the user had."""
    block = max(1, _BLOCK_SCORES // max(1, len(items)))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        scores = users[part] @ items.T
        for row, own in zip(part, scores, strict=True):
            own[histories.of(int(row))] = -np.inf
            places = best_places(own, count)
            yield places, own[places]
