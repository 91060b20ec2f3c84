"""A small catalogue as a release, built once by the real command, with what an oracle needs of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.worlds import generate
from rangefinder.answers import Certificate
from tests.kit import oracle
from tests.kit.processes import rangefinder

DIMENSION = 16
Rows = npt.NDArray[np.float32]
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallRelease:
    """Items whose ids are their row numbers, in shards named s-0, s-1, ..."""

    path: Path
    rows: Rows
    queries: Rows
    keys: list[int]
    known: dict[tuple[int, Ranges], dict[tuple[int, float], int]] = field(default_factory=dict)

    def places(self, query: int, certificate: Certificate) -> dict[tuple[int, float], int]:
        """The true place, from 0, of every (id, score) in the ranges that an answer covers."""
        missed = tuple((each.key_start, each.key_end) for each in certificate.missed_ranges)
        if (query, missed) not in self.known:
            left_out = frozenset(
                row
                for row, key in enumerate(self.keys)
                if any(start <= key < end for start, end in missed)
            )
            scores = oracle.scores("l2", self.rows, self.queries[query])
            best = oracle.best(scores, self.keys, len(self.keys), left_out)
            self.known[query, missed] = {hit: place for place, hit in enumerate(best)}
        return self.known[query, missed]


def build_small_release(
    folder: Path, *, item_count: int = 5_000, shard_count: int = 4, name: str = "release"
) -> SmallRelease:
    """Build a release at folder/name."""
    world = generate(item_count, DIMENSION, query_count=20, seed=2)
    np.save(folder / "rows.npy", world.rows)
    path = folder / name
    options: Sequence[object] = ("--metric", "l2", "--shards", shard_count, "--out", path)
    built = rangefinder("build", "--embeddings", folder / "rows.npy", *options)
    if built.returncode != 0:
        raise AssertionError(built.stderr)
    return SmallRelease(
        path=path,
        rows=world.rows,
        queries=world.queries,
        keys=[oracle.splitmix64(row) for row in range(item_count)],
    )
