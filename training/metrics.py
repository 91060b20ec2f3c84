"""How good lists of recommendations are, user by user, and how sure a difference is. Pure.

Definitions of the LightGCN paper (He et al., SIGIR 2020): what a user had in the training part is left
out of the lists; recall@k is hits / relevant items, NDCG@k has gain 1 for each hit and an ideal list of
min(k, relevant items) hits; users without relevant items do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Items = npt.NDArray[np.int64]
PerUser = npt.NDArray[np.float64]

RESAMPLES = 1_000
_PAD = -1


@dataclass(frozen=True, slots=True)
class Quality:
    """Each of shape (users,), in [0, 1]."""

    recall: PerUser
    ndcg: PerUser
    hit_rate: PerUser


def quality_of(recommended: Items, relevant: Sequence[Items]) -> Quality:
    """recommended: (users, k), best first, -1 pads. relevant: of each user, at least one item."""
    counts = np.array([len(own) for own in relevant])
    is_hit = _are_hits(recommended, np.concatenate(relevant), np.repeat(np.arange(len(counts)), counts))
    k = recommended.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(counts, k)]
    hits = is_hit.sum(axis=1)
    return Quality(recall=hits / counts, ndcg=is_hit @ discounts / ideal, hit_rate=(hits > 0) * 1.0)


def _are_hits(recommended: Items, relevant: Items, owners: Items) -> npt.NDArray[np.bool_]:
    """Which recommended items are relevant to the user of their row: a pair of both is one number."""
    items, numbers = np.unique(np.concatenate([recommended.ravel(), relevant]), return_inverse=True)
    users = np.concatenate([np.repeat(np.arange(len(recommended)), recommended.shape[1]), owners])
    pairs = users * len(items) + numbers
    is_hit = np.isin(pairs[: recommended.size], pairs[recommended.size :]).reshape(recommended.shape)
    return np.asarray(is_hit & (recommended != _PAD), np.bool_)


def mean_with_bounds(values: PerUser, seed: int = 0) -> tuple[float, float, float]:
    """Mean, and its lower and upper 95 % bound by bootstrap over users (Efron 1979).

    Given differences of two systems user by user, the bounds are those of the paired bootstrap.
    """
    random = np.random.default_rng(seed)
    means = np.array(
        [values[random.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
