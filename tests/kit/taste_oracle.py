"""What should be recommended, by plain Python: sources, reciprocal ranks, exclusions. It shares no code
with what it checks; the index is taken as exact, as it is in a small release.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.kit import oracle
from tests.kit.tasted_release import TastedRelease

QUOTAS = {"index": 500, "item_to_item": 500, "popularity": 100}
WEIGHTS = {"index": 1.0, "item_to_item": 1.0, "popularity": 0.1}
SEED_COUNT_MAX = 256

Scored = list[tuple[int, float]]  # Rows and scores, best first.


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Candidates in retrieval order: rows, merged scores, and what each source proposed."""

    rows: list[int]
    scores: dict[int, float]
    proposed: dict[str, Scored]

    def sources_of(self, row: int) -> tuple[str, ...]:
        return tuple(name for name, part in self.proposed.items() if row in dict(part))


def expected(
    release: TastedRelease,
    *,
    embedding: npt.NDArray[np.float32] | None,
    seeds: Sequence[int],
    excluded: Collection[int],
    count: int,
    quotas: Mapping[str, int] = QUOTAS,
    missed: Collection[int] = (),
) -> Expected:
    """The candidates for somebody. `missed`: rows that the index could not be asked for."""
    proposed = {
        "index": _nearest(release, embedding, {*excluded, *missed}),
        "item_to_item": _similar(release, seeds, excluded),
        "popularity": [each for each in release.popular if each[0] not in excluded],
    }
    proposed = {name: part[: quotas[name]] for name, part in proposed.items()}
    merged: dict[int, float] = {}
    for name, part in proposed.items():
        for rank, (row, _) in enumerate(part, start=1):
            merged[row] = merged.get(row, 0.0) + WEIGHTS[name] / (60 + rank)
    order = sorted(merged, key=lambda row: (-merged[row], release.keys[row]))
    return Expected(rows=order[:count], scores=merged, proposed=proposed)


def _nearest(
    release: TastedRelease, embedding: npt.NDArray[np.float32] | None, left_out: Collection[int]
) -> Scored:
    if embedding is None:
        return []
    scores = oracle.scores("ip", release.rows, embedding)
    return oracle.best(scores, release.keys, len(release.keys), frozenset(left_out))


def _similar(release: TastedRelease, seeds: Sequence[int], excluded: Collection[int]) -> Scored:
    totals: dict[int, float] = {}
    known = [row for row in dict.fromkeys(seeds) if row in release.neighbours]
    for seed in known[:SEED_COUNT_MAX]:
        for row, score in release.neighbours[seed]:
            totals[row] = totals.get(row, 0.0) + score
    order = sorted(totals, key=lambda row: (-totals[row], release.keys[row]))
    return [(row, totals[row]) for row in order if row not in excluded]
