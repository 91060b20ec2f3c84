"""What is known of each item but its embedding, as columns that a ranker may use. Pure."""

import numpy as np
import numpy.typing as npt

from training.interactions import Interactions


def item_features(interactions: Interactions) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """Names of the features, and their values: (items, features), NaN where unknown."""
    counts = np.bincount(interactions.items, minlength=interactions.item_count)
    return ("popularity",), np.log1p(counts).astype(np.float32)[:, None]
