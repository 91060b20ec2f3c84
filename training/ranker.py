"""The ranker of a release: boosted trees over candidate lists. Only this file knows LightGBM.

The trees are boosted from an anchor, the index's own score, and may not rank a candidate lower for
being scored higher by a source. What was held out resembles what was kept more than the future will:
most of all, that flatters co-occurrence. So the anchor's weight is raised afterwards.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt

from rangefinder.candidates import INDEX
from rangefinder.deadline import Deadline
from rangefinder.hashing import FileChecksum
from rangefinder.release import RankerDescription
from ranker_service.card import RELEVANCE, Card, Feature, Head, TrainingFigures, save_model
from ranker_service.features import ITEM, Floats
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

# More, or as many as a stopping part asks for, are worse on what nobody has seen: of a strong index,
# little is left to learn, and trees soon learn the part that was held out by heart. For the same reason
# a leaf holds so large a share of the candidates.
_TREES = 40
_LEAF_SHARE, _LEAF_MIN, _LEAF_MAX = 1 / 250, 20, 3_000
_PARAMETERS = {
    "objective": "lambdarank",
    "lambdarank_truncation_level": 30,
    "learning_rate": 0.1,
    "num_leaves": 31,
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
    booster, anchor = _boosted(rows, parts, list(features), seed, threads)
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
    rows: ListRows, parts: Parts, names: list[str], seed: int, threads: int
) -> tuple[Any, Anchor]:
    """The trees, and what they are added to."""
    anchor = Anchor(feature=names.index(_ANCHOR_FEATURE), weight=_ANCHOR_WEIGHT, most=_ANCHOR_MOST)
    parameters = _PARAMETERS | {
        "monotone_constraints": [_direction(name) for name in names],
        "seed": seed % 2**31,
        "num_threads": threads,
    }
    values, labels, lengths = _fitted(rows, parts.fitting[:_FITTED_USERS_MAX])
    leaf_rows = min(max(int(len(values) * _LEAF_SHARE), _LEAF_MIN), _LEAF_MAX)
    booster = lightgbm.train(
        parameters | {"min_data_in_leaf": leaf_rows},
        lightgbm.Dataset(values, labels, group=lengths, init_score=anchor.of(values)),
        _TREES,
    )
    raised = Anchor(feature=anchor.feature, weight=anchor.weight * _ANCHOR_RAISED, most=anchor.most)
    return lightgbm.Booster(model_str=_in_float32(booster.model_to_string())), raised


def _direction(name: str) -> int:
    """1: the score may not fall as the feature grows; -1: nor rise; 0: either."""
    owner, view = name.rsplit(".", 1)
    if owner == ITEM or view == "share":
        return 0
    return -1 if view == "rank" else 1


def _fitted(rows: ListRows, numbers: Numbers) -> tuple[Floats, npt.NDArray[np.int32], list[int]]:
    """Rows and labels of lists, and each one's length; a list with nothing right teaches nothing."""
    labels = {number: rows.lists.labels[number][:_FITTED_CANDIDATES] for number in numbers.tolist()}
    useful = [number for number, own in labels.items() if own.any()]
    parts = [rows.of(number)[:_FITTED_CANDIDATES] for number in useful]
    right = np.concatenate([labels[number] for number in useful]).astype(np.int32)
    return np.concatenate(parts), right, [len(part) for part in parts]


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
