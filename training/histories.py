"""What each user had, newest first. Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.interactions import Codes, Interactions

_SEED = 3


@dataclass(frozen=True, slots=True)
class Histories:
    """Items of all users one after another, and where each user's end: see user_tables.py."""

    items: Codes
    ends: npt.NDArray[np.int64]

    @classmethod
    def of_interactions(cls, interactions: Interactions) -> "Histories":
        """By time where times are known; else in an arbitrary order, of which any beginning is fair."""
        random = np.random.default_rng(_SEED).random(len(interactions))
        newest = random if interactions.times is None else -interactions.times
        order = np.lexsort((interactions.items, newest, interactions.users))
        counts = np.bincount(interactions.users, minlength=interactions.user_count)
        return cls(interactions.items[order], np.cumsum(counts).astype(np.int64))

    def of(self, user: int) -> Codes:
        start = int(self.ends[user - 1]) if user else 0
        return self.items[start : int(self.ends[user])]
