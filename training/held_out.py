"""Users of whom something was held out, and how good lists are for them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rangefinder.item_tables import Places
from training.histories import Histories
from training.metrics import quality_of
from training.split import Split

LIST_LENGTH = 20  # NDCG@20 decides.
USERS_MAX = 10_000

_PAIRS_MAX = 2_000_000_000  # Of a user and an item: as many as are ranked in a minute or two.


@dataclass(frozen=True, slots=True)
class HeldOutUsers:
    """Some or all of those users, in the order of their codes."""

    users: Places
    histories: Histories  # Of the part that was not held out, of all users.
    relevant: list[Places]  # What was held out of each of `users`; never nothing.

    @classmethod
    def of(cls, split: Split, seed: int, count_max: int = USERS_MAX) -> "HeldOutUsers":
        """All, or a sample of at most count_max."""
        codes, items = split.held_out.users, split.held_out.items
        users = np.unique(codes).astype(np.int64)
        count = min(count_max, len(users), max(1, _PAIRS_MAX // split.part.item_count))
        users = np.sort(np.random.default_rng(seed).choice(users, count, replace=False))
        starts, ends = np.searchsorted(codes, users), np.searchsorted(codes, users, side="right")
        relevant = [items[a:b].astype(np.int64) for a, b in zip(starts, ends, strict=True)]
        return cls(users, Histories.of_interactions(split.part), relevant)

    def ndcg(self, lists: Iterable[Places]) -> float:
        """Mean NDCG@20 of a list for each user, best first."""
        rows = np.full((len(self.users), LIST_LENGTH), -1, np.int64)
        for row, own in zip(rows, lists, strict=True):
            row[: min(len(own), LIST_LENGTH)] = own[:LIST_LENGTH]
        return float(quality_of(rows, self.relevant).ndcg.mean())
