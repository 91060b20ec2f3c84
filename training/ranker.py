"""The ranker of a release: boosted trees over candidate lists. Only this file knows LightGBM.

The trees are boosted from an anchor, the index's own score. What was held out resembles what was kept
more than the future will: most of all, that flatters co-occurrence. So the anchor's weight is raised
afterwards.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from rangefinder.candidates import INDEX
from rangefinder.deadline import Deadline
from rangefinder.hashing import FileChecksum
from rangefinder.release import RankerDescription
from ranker_service.card import RELEVANCE, Card, Feature, Head, TrainingFigures, save_model
from ranker_service.features import Floats
from ranker_service.model import Model
from training.export import Anchor, onnx_of
from training.list_rows import ListRows, Numbers, Parts, features_for, parts_of
from training.metrics import mean_with_bounds
from training.ranking_lists import RankingLists

MODEL_NAME = "lambdamart"

# With fewer lists that hold anything right, trees learn noise, and nobody could tell.
USERS_MIN = 100

# Of a list, those that are fitted: what stands behind them is not recommended in either order.
_FITTED_CANDIDATES = 200
_FITTED_USERS_MAX = 5_000

# The anchor: of the index's score by its twentieth, at most four times as much (its best items of a
# narrow taste reach that). The weight while boosting, and the factor that it is raised by afterwards.
_ANCHOR_FEATURE, _ANCHOR_MOST = f"{INDEX}.of_twentieth", 4.0
_ANCHOR_WEIGHT, _ANCHOR_RAISED = 1.0, 1.5

# A fixed number: NDCG of some hundred users is too noisy to say when to stop, and stopped at chance.
_TREE_COUNT = 60

# Leaves of many candidates: what is left to learn after the anchor is weak.
_PARAMETERS = {
    "objective": "lambdarank",
    "lambdarank_truncation_level": 30,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 200,
    "max_bin": 63,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    "deterministic": True,
    "force_col_wise": True,
    "verbose": -1,
}

_NO_HURRY = Deadline(math.inf, lambda: 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRanker:
    """A ranker that was judged good enough to ship."""

    card: Card
    content: bytes  # ONNX.

    def save(self, folder: Path) -> RankerDescription:
        """Write `ranker/` into a release that is being built."""
        return save_model(folder, self.card, self.content)


@dataclass(frozen=True, slots=True)
class RankerOutcome:
    """A ranker, or none that is worth its time."""

    ranker: TrainedRanker | None
    summary: str  # One line for people.


def train_ranker(lists: RankingLists, seed: int, threads: int) -> RankerOutcome:
    """Train on lists, judge on others. The same seed, on one thread, gives the same bytes."""
    useful_count = sum(bool(labels.any()) for labels in lists.labels)
    if useful_count < USERS_MIN:
        why = f"{useful_count} users have something to learn from, {USERS_MIN} are needed"
        return RankerOutcome(ranker=None, summary=f"no ranker: {why}")
    features = features_for(lists)
    rows, parts = ListRows(lists, features), parts_of(len(lists.lists), seed)
    booster, anchor = _boosted(rows, parts.fitting, list(features), seed, threads)
    content = onnx_of(booster, len(features), anchor, RELEVANCE)
    model = Model(content, len(features), [RELEVANCE], MODEL_NAME)
    _require_same(booster, anchor, model, rows.of(int(parts.judging[0])))
    figures = _judged(rows, parts, model, booster.current_iteration())
    if figures.gain_low <= 0:
        return RankerOutcome(ranker=None, summary=f"no ranker: not surely better, {_spelt(figures)}")
    card = _card(lists, features, figures, content)
    return RankerOutcome(
        ranker=TrainedRanker(card=card, content=content), summary=f"ranker: {_spelt(figures)}"
    )


def _boosted(
    rows: ListRows, fitting: Numbers, names: list[str], seed: int, threads: int
) -> tuple[Any, Anchor]:
    """The trees, and what they are added to."""
    anchor = Anchor(feature=names.index(_ANCHOR_FEATURE), weight=_ANCHOR_WEIGHT, most=_ANCHOR_MOST)
    parameters = _PARAMETERS | {"seed": seed % 2**31, "num_threads": threads}
    fitted = _set_of(rows, fitting[:_FITTED_USERS_MAX], anchor, parameters)
    booster = lightgbm.train(parameters, fitted, _TREE_COUNT)
    trees = booster.model_to_string()
    raised = Anchor(feature=anchor.feature, weight=anchor.weight * _ANCHOR_RAISED, most=anchor.most)
    return lightgbm.Booster(model_str=_in_float32(trees)), raised


def _set_of(rows: ListRows, numbers: Numbers, anchor: Anchor, parameters: dict[str, Any]) -> Any:
    """LightGBM's columns of some lists; one with nothing right in it teaches nothing."""
    labels = {number: rows.lists.labels[number][:_FITTED_CANDIDATES] for number in numbers.tolist()}
    useful = [number for number, own in labels.items() if own.any()]
    parts = [rows.of(number)[:_FITTED_CANDIDATES] for number in useful]
    values = np.concatenate(parts)
    return lightgbm.Dataset(
        values,
        np.concatenate([labels[number] for number in useful]).astype(np.int32),
        group=[len(part) for part in parts],
        init_score=anchor.of(values),
        params=parameters,
    )


def _in_float32(trees: str) -> str:
    """Thresholds rounded down to float32: for float32 values every comparison stays as it is."""
    lines = []
    for line in trees.split("\n"):
        name, equals, numbers = line.partition("=")
        if name == "tree_sizes":
            continue  # In bytes, which change; without it, trees are read up to their end.
        if name == "threshold":
            exact = np.array(numbers.split(), np.float64)
            near = exact.astype(np.float32)
            down = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
            numbers = " ".join(repr(float(value)) for value in down)
        lines.append(name + equals + numbers)
    return "\n".join(lines)


def _require_same(booster: Any, anchor: Anchor, model: Model, rows: Floats) -> None:
    """The model that is shipped scores as the one that was trained, but for float32's last digits."""
    expected = booster.predict(rows) + anchor.of(rows)
    given = model.score(rows, _NO_HURRY)[:, 0]
    assert np.allclose(expected, given, rtol=1e-4, atol=1e-4), "ONNX differs from LightGBM"


def _judged(rows: ListRows, parts: Parts, model: Model, tree_count: int) -> TrainingFigures:
    """The model that would be shipped against the index alone."""
    judging = parts.judging
    numbers = judging.tolist()
    retrieval = rows.ndcg(judging, [rows.by_index(number) for number in numbers])
    scores = [model.score(rows.of(number), _NO_HURRY)[:, 0] for number in numbers]
    ranker = rows.ndcg(judging, scores)
    gain, gain_low, gain_high = mean_with_bounds(ranker - retrieval)
    return TrainingFigures(
        users_fitted=min(len(parts.fitting), _FITTED_USERS_MAX),
        users_judged=len(judging),
        retrieval_ndcg=float(retrieval.mean()),
        ranker_ndcg=float(ranker.mean()),
        gain=gain,
        gain_low=gain_low,
        gain_high=gain_high,
        tree_count=tree_count,
    )


def _spelt(figures: TrainingFigures) -> str:
    return (
        f"NDCG@20 {figures.ranker_ndcg:.4f}, of retrieval alone {figures.retrieval_ndcg:.4f}:"
        f" {figures.gain:+.4f} [{figures.gain_low:+.4f}, {figures.gain_high:+.4f}]"
        f" on {figures.users_judged} users held out"
    )


def _card(
    lists: RankingLists, features: dict[str, float], figures: TrainingFigures, content: bytes
) -> Card:
    """The version is the model's checksum: equal models have equal names."""
    state = FileChecksum()
    state.update(content)
    return Card(
        model=MODEL_NAME,
        version=state.hexdigest()[:12],
        sources=lists.lists[0].sources,
        item_features=lists.tables.feature_names,
        features=tuple(Feature(name=name, default=default) for name, default in features.items()),
        heads=(Head(name=RELEVANCE, weight=1.0),),
        training=figures,
    )
