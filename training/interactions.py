"""Who had what, as columns of small numbers, and the ids that the numbers stand for. Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rangefinder.keys import IntegerIds
from rangefinder.texts import TextColumn

Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interactions:
    """Distinct pairs of a user and an item, sorted by user, then by item.

    users, items, ratings and times are columns of one length; codes count from 0 in `user_ids` and
    `item_ids`. Every code below their lengths stands for an id, whether it occurs or not.
    """

    users: Codes
    items: Codes
    ratings: npt.NDArray[np.float32] | None
    times: npt.NDArray[np.float64] | None  # Seconds since 1970.
    user_ids: TextColumn  # An integer id is written in decimal.
    item_ids: IntegerIds | TextColumn

    @property
    def user_count(self) -> int:
        return len(self.user_ids)

    @property
    def item_count(self) -> int:
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.users)

    def part(self, places: npt.NDArray[np.int64]) -> "Interactions":
        """Some of the pairs, at ascending places; the ids stay."""
        return Interactions(
            users=self.users[places],
            items=self.items[places],
            ratings=None if self.ratings is None else self.ratings[places],
            times=None if self.times is None else self.times[places],
            user_ids=self.user_ids,
            item_ids=self.item_ids,
        )
