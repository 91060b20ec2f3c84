"""A release's ranker: features of the candidates, scores, order. It blocks; the service has threads."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rangefinder.deadline import Deadline
from rangefinder.errors import DeadlineSpent, ReleaseDamaged
from rangefinder.item_tables import ItemTables
from rangefinder.keys import Keys
from rangefinder.release import ReleaseManifest
from ranker_service.card import CARD, Card, open_model
from ranker_service.features import CandidateColumns, FeatureRows, Floats, feature_rows
from ranker_service.model import CHUNK_ROWS, Model

Places = npt.NDArray[np.int64]

_WARM_UP_S = 10.0
_WARM_UP_RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """A checked request."""

    keys: Keys  # Of the candidates, best-retrieved first.
    sources: tuple[str, ...]
    source_scores: Floats  # Shape (candidates, sources).
    item_features: Mapping[str, Floats]  # Given with the request: before what the release says.
    head_weights: Floats  # Shape (heads,).


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """The candidates in their new order; every column but `order` is in the order they came."""

    order: Places  # Places of the candidates: scored ones, best first, then the others as they came.
    scores: Floats  # NaN where there was no time.
    head_scores: Floats  # Shape (candidates, heads).
    features: FeatureRows
    scored_count: int
    features_s: float
    ranking_s: float


class Ranker:
    """The model of a release, and what the release knows of its items."""

    def __init__(self, card: Card, model: Model, tables: ItemTables | None) -> None:
        self.card, self._model, self._tables = card, model, tables
        self._names, self._defaults = card.feature_names, card.defaults
        known = () if tables is None else tables.feature_names
        self._columns = [known.index(name) for name in card.item_features] if known else []

    @classmethod
    def open(cls, root: Path, manifest: ReleaseManifest) -> "Ranker":
        """Verify and load. Raises InputRefused, ReleaseDamaged."""
        card, model = open_model(root, manifest)
        tables = ItemTables.open(root, manifest)
        known = () if tables is None else tables.feature_names
        missing = [name for name in card.item_features if name not in known]
        if missing:
            raise ReleaseDamaged(
                f"{root / CARD}: reads item feature {missing[0]}, which the release does not have"
            )
        return cls(card, model, tables)

    def warm_up(self) -> None:
        """Rank made-up candidates a few times: what is allocated or read on first use is, by then."""
        card = self.card
        shape = (2 * CHUNK_ROWS, len(card.sources))
        ranking = Ranking(
            keys=np.arange(shape[0], dtype=np.uint64),
            sources=card.sources,
            source_scores=np.random.default_rng(0).random(shape, np.float32),
            item_features={},
            head_weights=np.ones(len(card.heads), np.float32),
        )
        for _ in range(_WARM_UP_RUNS):
            self.rank(ranking, Deadline.after(_WARM_UP_S, time.monotonic))

    def rank(self, ranking: Ranking, deadline: Deadline) -> Ranked:
        """Score the best-retrieved candidates first. Raises DeadlineSpent where none was in time."""
        began_s, count = deadline.clock(), len(ranking.keys)
        deadline.require_time_left()
        features = self._features(ranking)
        ready_s = deadline.clock()
        heads = self._model.score(features.values, deadline)
        scored_count = len(heads)
        if count and not scored_count:
            raise DeadlineSpent(f"none of {count} candidates was scored in time: allow more")
        if scored_count < count:
            heads = np.pad(heads, ((0, count - scored_count), (0, 0)), constant_values=np.nan)
        scores = (heads * ranking.head_weights).sum(axis=1, dtype=np.float32)
        best_first = np.argsort(-scores[:scored_count], kind="stable")
        return Ranked(
            order=np.concatenate([best_first, np.arange(scored_count, count)]),
            scores=scores,
            head_scores=heads,
            features=features,
            scored_count=scored_count,
            features_s=ready_s - began_s,
            ranking_s=deadline.clock() - ready_s,
        )

    def _features(self, ranking: Ranking) -> FeatureRows:
        columns = CandidateColumns(
            sources=ranking.sources,
            source_scores=ranking.source_scores,
            item_feature_names=self.card.item_features,
            item_features=self._item_features(ranking),
        )
        return feature_rows(columns, self._names, self._defaults)

    def _item_features(self, ranking: Ranking) -> Floats:
        """Shape (candidates, features): as given, else as the release says, else NaN."""
        names, tables = self.card.item_features, self._tables
        if tables is not None and len(tables.keys) and names:
            places = tables.places_of(ranking.keys)
            rows = tables.features[places[:, None], self._columns]
            rows[places < 0] = np.nan
        else:
            rows = np.full((len(ranking.keys), len(names)), np.nan, np.float32)
        for name, given in ranking.item_features.items():
            column = rows[:, names.index(name)]
            np.copyto(column, given, where=~np.isnan(given))
        return rows
