"""What a ranker is trained on: candidate lists as the router makes them, and what was right in each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rangefinder.candidates import Candidates
from rangefinder.item_tables import ItemTables


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingLists:
    """Lists of users of whom some interactions were held out of embeddings and tables."""

    lists: Sequence[Candidates]  # One for each user.
    labels: Sequence[npt.NDArray[np.bool_]]  # Beside each list: the user had this item, held out.
    relevant_counts: npt.NDArray[np.int64]  # Items held out for each user, found or not; at least 1.
    tables: ItemTables  # Of the part that was not held out; keys of the lists lead into it.
