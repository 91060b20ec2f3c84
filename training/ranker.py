"""The ranker of a release: none yet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rangefinder.release import RankerDescription
from training.ranking_lists import RankingLists


class Ranker(Protocol):
    """A model that was trained and judged good enough to ship."""

    def save(self, folder: Path) -> RankerDescription:
        """Write `ranker/` into a release that is being built."""


@dataclass(frozen=True, slots=True)
class RankerOutcome:
    """A ranker, or why there is none."""

    ranker: Ranker | None
    summary: str  # One line for people.


def train_ranker(lists: RankingLists, seed: int, threads: int) -> RankerOutcome:
    """Train on lists, judge on others of them."""
    return RankerOutcome(None, "no ranker: this version trains none")
