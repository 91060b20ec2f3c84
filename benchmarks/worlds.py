"""Generated catalogues in memory, with titles, drawn as rangefinder/cli/bench/world.py says."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rangefinder.cli.bench.world import ITEMS_PER_CLUSTER, Shape

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
    shape = Shape.draw(random, dimension, max(item_count // ITEMS_PER_CLUSTER, 1))
    rows, clusters = shape.rows(random, item_count + query_count)
    return World(rows=rows[:item_count], clusters=clusters[:item_count], queries=rows[item_count:])
