"""Items that foretell each other best: EASE, from the table of how often two items were had together.

Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019.
With G that table and P = (G + regularization · 1)^-1, the weight of `other` for an item is
-P[item, other] / P[other, other]: what having the item adds to the chance of `other` that the rest of a
history does not explain already. The table is dense and inverted, so this is for small catalogues.
"""

import numpy as np

from training.best import best_places
from training.interactions import Interactions
from training.neighbours import NEIGHBOUR_COUNT, Neighbours, recent_matrices

ITEM_COUNT_MAX = 5_000  # Ten seconds for an inversion, and 600 MB.


def ease_neighbours(
    interactions: Interactions, regularization: float, count: int = NEIGHBOUR_COUNT
) -> Neighbours:
    """Of each item the `count` others of greatest weight, as far as it is positive."""
    had, _ = recent_matrices(interactions)
    inverse = (had.T @ had).toarray().astype(np.float64)
    inverse[np.diag_indices_from(inverse)] += regularization
    inverse = np.linalg.inv(inverse)
    weights = (inverse / -np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weights, 0)
    found = Neighbours.none(len(weights), count)
    for item, scores in enumerate(np.where(weights > 0, weights, -np.inf)):
        best = best_places(scores, count)
        found.places[item, : len(best)] = best
        found.scores[item, : len(best)] = scores[best]
    return found
