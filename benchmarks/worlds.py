"""Generated catalogues: low-rank, clustered, seeded. The same arguments give the same world.

Embeddings of real catalogues lie near a few directions and in clusters: items are drawn around
centres in a space of lower rank, and turned into all dimensions. Queries are drawn like items.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]

_ADJECTIVES = (
    *("amber", "brisk", "calm", "dapper", "early", "faded", "gentle", "hollow", "ivory", "jolly"),
    *("keen", "lunar", "mellow", "narrow", "opal", "plain", "quiet", "rustic", "silver", "tidal"),
)
_NOUNS = (
    *("anchor", "basket", "candle", "drum", "easel", "flask", "guitar", "hammock", "inkwell"),
    *("jacket", "kettle", "lantern", "mirror", "notebook", "oven", "piano", "quilt", "rocket"),
    *("saddle", "teapot"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Items, and queries like them that are no items."""

    rows: Rows  # Shape (items, dimension).
    clusters: npt.NDArray[np.int64]  # Of each item.
    queries: Rows  # Shape (queries, dimension).

    def titles(self) -> list[str]:
        """A name for each item; items of a cluster are of one sort."""
        nouns = [_NOUNS[cluster % len(_NOUNS)] for cluster in self.clusters.tolist()]
        return [
            f"{_ADJECTIVES[(row * 7 + row // 20) % len(_ADJECTIVES)]} {noun} no. {row}"
            for row, noun in enumerate(nouns)
        ]


def generate(item_count: int, dimension: int, *, query_count: int = 1_000, seed: int = 0) -> World:
    """A world of `item_count` items; rank is a quarter of the dimension, one cluster per 500 items."""
    random = np.random.default_rng(seed)
    rank = max(dimension // 4, 2)
    cluster_count = max(item_count // 500, 1)
    turn = random.standard_normal((rank, dimension)) / np.sqrt(rank)
    centres = random.standard_normal((cluster_count, rank))
    # Clusters differ in size as categories do.
    shares = random.pareto(1.5, cluster_count) + 0.1
    clusters = random.choice(cluster_count, item_count + query_count, p=shares / shares.sum())
    points = centres[clusters] + 0.5 * random.standard_normal((len(clusters), rank))
    rows = points @ turn + 0.05 * random.standard_normal((len(clusters), dimension))
    rows = rows.astype(np.float32)
    return World(rows=rows[:item_count], clusters=clusters[:item_count], queries=rows[item_count:])
