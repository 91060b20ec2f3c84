"""What is known of each item but its embedding, as columns that a ranker may use. Pure.

    popularity    how many users had the item
    activity      how much else its users had: low for what newcomers choose
    rating        mean of its ratings, where interactions have ratings

Each is the share of the catalogue that has less, so that it means the same when the history has grown.
"""

import numpy as np
import numpy.typing as npt

from training.interactions import Interactions

Column = npt.NDArray[np.float64]


def item_features(interactions: Interactions) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """Names of the features, and their values: (items, features), NaN where unknown."""
    counts = np.bincount(interactions.items, minlength=interactions.item_count)
    lengths = np.bincount(interactions.users, minlength=interactions.user_count)
    columns = {
        "popularity": _shares(counts.astype(np.float64)),
        "activity": _shares(_means(interactions, np.log(lengths[interactions.users]), counts)),
    }
    if interactions.ratings is not None:
        columns["rating"] = _shares(_means(interactions, interactions.ratings, counts))
    return tuple(columns), np.stack(list(columns.values()), axis=1).astype(np.float32)


def _means(
    interactions: Interactions, values: npt.NDArray[np.floating], counts: npt.NDArray[np.int64]
) -> Column:
    """Of each item; NaN where it has no interaction."""
    sums = np.bincount(interactions.items, values, interactions.item_count)
    means: Column = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return means


def _shares(values: Column) -> Column:
    """In (0, 1): the known values below each; of equal ones, half are counted as below."""
    ordered = np.sort(values[~np.isnan(values)])
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    shares = (below + not_above) / 2 / max(len(ordered), 1)
    return np.where(np.isnan(values), np.nan, shares)
