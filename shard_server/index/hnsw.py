"""HNSW by hnswlib (Malkov, Yashunin, TPAMI 2020). Only this file knows the library.

`ef` stays at 1 and k = width is asked for: the library searches with the larger of the two, so the
answers are the same, no state is shared, and searches of any width run at once on one index. Cosine is
inner product over the unit rows of the segment. Adding on one thread makes builds repeatable.
"""

from pathlib import Path

import hnswlib
import numpy as np
import numpy.typing as npt

from rangefinder.errors import InputRefused, ReleaseDamaged
from rangefinder.metric import Metric
from rangefinder.release import IndexParameters
from shard_server.index import UnreachableRows
from shard_server.scoring import Rows, unit_rows

SEED = 100
_SPACES = {Metric.INNER_PRODUCT: "ip", Metric.COSINE: "ip", Metric.L2: "l2"}


class HnswIndex:
    """An hnswlib index as a VectorIndex."""

    def __init__(self, index: hnswlib.Index) -> None:
        self._index = index

    @classmethod
    def load(cls, path: Path, metric: Metric, dimension: int) -> "HnswIndex":
        """Read a saved index. The caller has verified the file: the library trusts what it reads.

        Raises ReleaseDamaged.
        """
        index = hnswlib.Index(space=_SPACES[metric], dim=dimension)
        try:
            index.load_index(str(path))
        except RuntimeError as error:
            raise ReleaseDamaged(f"{path}: {error}") from None
        index.set_num_threads(1)
        return cls(index)

    def search(self, queries: Rows, width: int) -> npt.NDArray[np.int64]:
        """See VectorIndex."""
        try:
            labels, _ = self._index.knn_query(self._scaled(queries), k=width, num_threads=1)
        except RuntimeError as error:
            raise UnreachableRows(str(error)) from None
        found: npt.NDArray[np.int64] = labels.view(np.int64)
        return found

    def _scaled(self, queries: Rows) -> Rows:
        """Queries of length 1 for inner products: the library's 1 - product loses tiny ones."""
        return unit_rows(queries) if self._index.space == "ip" else queries


class HnswBuilder:
    """An hnswlib index as an IndexBuilder."""

    def __init__(
        self, metric: Metric, dimension: int, row_count: int, parameters: IndexParameters
    ) -> None:
        self._index = hnswlib.Index(space=_SPACES[metric], dim=dimension)
        self._index.init_index(
            max_elements=row_count,
            M=parameters.links,
            ef_construction=parameters.build_width,
            random_seed=SEED,
        )
        self._index.set_num_threads(1)

    @property
    def index(self) -> HnswIndex:
        return HnswIndex(self._index)

    def add(self, rows: Rows, row_numbers: npt.NDArray[np.int64]) -> None:
        self._index.add_items(rows, row_numbers, num_threads=1)

    def save(self, path: Path) -> None:
        self._index.save_index(str(path))
        # The library does not notice a full disk.
        size, expected = path.stat().st_size, self._index.index_file_size()
        if size != expected:
            raise InputRefused(f"{path}: {size} of {expected} bytes were written: is the disk full?")
