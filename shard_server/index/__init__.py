"""Index engines: what finds candidate rows without looking at all of them. One file per engine."""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shard_server.scoring import Rows


class UnreachableRows(Exception):
    """An index could not find as many rows as were asked for; those of the segment may be more."""


class VectorIndex(Protocol):
    """The index of one segment. Immutable once built; any number of threads may search it."""

    def search(self, queries: Rows, width: int) -> npt.NDArray[np.int64]:
        """The `width` rows that the index takes for nearest, nearest first: (queries, width).

        Raises UnreachableRows. The same query gives the same rows, alone or in a batch.
        """


class IndexBuilder(Protocol):
    """Builds the index of one segment. The same rows in the same order give the same index."""

    @property
    def index(self) -> VectorIndex:
        """The index of what was added so far; not to be searched while adding."""

    def add(self, rows: Rows, row_numbers: npt.NDArray[np.int64]) -> None:
        """Add rows under their numbers in the segment."""

    def save(self, path: Path) -> None:
        """Write the index to a file."""
