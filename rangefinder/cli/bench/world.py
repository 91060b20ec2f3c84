"""Generated catalogues: low-rank, clustered, seeded. The same arguments give the same world.

Embeddings of real catalogues lie near a few directions and in clusters: items are drawn around
centres in a space of lower rank, and turned into all dimensions. Queries are drawn like items. Items
come in blocks, each from a seed of its own, so that a world of any size takes the memory of one block.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shard_server.build.source import BLOCK_ROWS, Ids, ItemBlock
from shard_server.scoring import Rows

ITEMS_PER_CLUSTER = 500

# Which of a world's random numbers: blocks of items are numbered from 0.
_SHAPE, _QUERIES, _ITEMS = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Where the clusters of a world lie, and which share of the items is in each."""

    turn: npt.NDArray[np.float64]  # Shape (rank, dimension).
    centres: npt.NDArray[np.float64]  # Shape (clusters, rank).
    shares: npt.NDArray[np.float64]  # They add up to 1.

    @classmethod
    def draw(cls, random: np.random.Generator, dimension: int, cluster_count: int) -> "Shape":
        """Rank is a quarter of the dimension; clusters differ in size as categories do."""
        rank = max(dimension // 4, 2)
        turn = random.standard_normal((rank, dimension)) / np.sqrt(rank)
        centres = random.standard_normal((cluster_count, rank))
        shares = random.pareto(1.5, cluster_count) + 0.1
        return cls(turn=turn, centres=centres, shares=shares / shares.sum())

    def rows(self, random: np.random.Generator, count: int) -> tuple[Rows, npt.NDArray[np.int64]]:
        """Rows of shape (count, dimension), and the cluster of each."""
        clusters = random.choice(len(self.centres), count, p=self.shares)
        rank, dimension = self.turn.shape
        points = self.centres[clusters] + 0.5 * random.standard_normal((count, rank))
        rows = points @ self.turn + 0.05 * random.standard_normal((count, dimension))
        return rows.astype(np.float32), clusters


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedSource:
    """A world as something that a release is built from; ids are row numbers."""

    row_count: int
    dimension: int
    seed: int

    attribute_schema = None

    @property
    def name(self) -> str:
        return f"generated {self.row_count:,} x {self.dimension}"

    def ids(self) -> Ids:
        return np.arange(self.row_count, dtype=np.int64)

    def blocks(self) -> Iterator[ItemBlock]:
        shape = self._shape()
        for number, start in enumerate(range(0, self.row_count, BLOCK_ROWS)):
            count = min(BLOCK_ROWS, self.row_count - start)
            rows, _ = shape.rows(self._random(_ITEMS, number), count)
            yield ItemBlock(rows, None)

    def queries(self, count: int) -> Rows:
        """Rows like the items that are none of them."""
        return self._shape().rows(self._random(_QUERIES), count)[0]

    def _shape(self) -> Shape:
        cluster_count = max(self.row_count // ITEMS_PER_CLUSTER, 1)
        return Shape.draw(self._random(_SHAPE), self.dimension, cluster_count)

    def _random(self, *which: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *which))
