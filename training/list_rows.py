"""Ranking lists as rows of features, and who of them is learned from and who judges. Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rangefinder.candidates import INDEX, POPULARITY
from ranker_service.features import (
    ITEM,
    RETRIEVAL_RANK,
    VIEWS,
    CandidateColumns,
    Floats,
    feature_rows,
)
from training.metrics import PerUser, quality_of
from training.ranking_lists import RankingLists

Numbers = npt.NDArray[np.int64]  # Of lists.

JUDGED_AT = 20  # NDCG@20 decides.
JUDGING_SHARE = 0.2

# Where a source did not propose a candidate: behind all that it did propose.
_RANK_DEFAULT, _SCORE_DEFAULT = 1_001.0, -10.0
_QUOTIENT_DEFAULT = 0.0
_ITEM_DEFAULT = 0.5  # The middle of the catalogue.

_PAD = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Numbers of lists in random order, those of no part in common."""

    fitting: Numbers
    judging: Numbers


def parts_of(list_count: int, seed: int) -> Parts:
    """Random parts of the shares above."""
    numbers = np.random.default_rng(seed).permutation(list_count)
    judging, fitting = np.split(numbers, [int(list_count * JUDGING_SHARE)])
    return Parts(fitting=fitting, judging=judging)


def features_for(lists: RankingLists) -> dict[str, float]:
    """The features that a ranker of such lists reads, each with its default."""
    features = {RETRIEVAL_RANK: _RANK_DEFAULT}
    for source in lists.lists[0].sources:
        # What most users had is the same for all: its score says no more than the item's popularity.
        views = ("rank",) if source == POPULARITY else VIEWS
        features |= {f"{source}.{view}": _default(view) for view in views}
    return features | {f"{ITEM}.{name}": _ITEM_DEFAULT for name in lists.tables.feature_names}


def _default(view: str) -> float:
    if view == "rank":
        return _RANK_DEFAULT
    return _SCORE_DEFAULT if view == "standard" else _QUOTIENT_DEFAULT


class ListRows:
    """The rows of each list, computed when they are asked for."""

    def __init__(self, lists: RankingLists, features: dict[str, float]) -> None:
        self.lists = lists
        self._names, self._defaults = list(features), np.array(list(features.values()), np.float32)

    def of(self, number: int) -> Floats:
        """Shape (candidates, features)."""
        candidates, tables = self.lists.lists[number], self.lists.tables
        columns = CandidateColumns(
            sources=candidates.sources,
            source_scores=candidates.source_scores,
            item_feature_names=tables.feature_names,
            item_features=tables.features[tables.places_of(candidates.keys)],
        )
        return feature_rows(columns, self._names, self._defaults).values

    def by_index(self, number: int) -> Floats:
        """Scores that order a list as the index alone does; its first twenty are always in it."""
        candidates = self.lists.lists[number]
        ranks = candidates.source_ranks[:, candidates.sources.index(INDEX)].astype(np.float32)
        return np.where(ranks > 0, -ranks, -np.inf).astype(np.float32)

    def ndcg(self, numbers: Numbers, scores: "list[Floats]") -> PerUser:
        """NDCG@20 of each of these lists, ordered by the scores beside it."""
        recommended = np.full((len(numbers), JUDGED_AT), _PAD, np.int64)
        relevant = []
        for row, number, values in zip(recommended, numbers.tolist(), scores, strict=True):
            best = np.argsort(-values, kind="stable")[:JUDGED_AT]
            best = best[values[best] > -np.inf]
            row[: len(best)] = best
            found = np.flatnonzero(self.lists.labels[number])
            missing_count = int(self.lists.relevant_counts[number]) - len(found)
            # What the list lacks is relevant all the same: places that no list has.
            relevant.append(np.concatenate([found, _PAD - 1 - np.arange(missing_count)]))
        return quality_of(recommended, relevant).ndcg
