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
from training.list_rows import ListRows, Numbers, features_for, halves_of
from training.metrics import PerUser, mean_with_bounds
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

# More trees, or as many as a stopping part asks for, are worse on what nobody has seen: a strong index
# leaves little to learn, and trees soon learn by heart what was held out. For the same reason a leaf
# holds so large a share of the candidates.
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

_CHECKED_ROWS = 2_000  # Scored by LightGBM, too.

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
        return RankerOutcome(None, f"no ranker: {why}")
    features = features_for(lists)
    trainer = _Trainer(ListRows(lists, features), list(features), seed, threads)
    halves = halves_of(len(lists.lists), seed)
    figures = _judged(trainer, *halves)
    if figures.gain_low <= 0:
        return RankerOutcome(None, f"no ranker: not surely better, {_spelt(figures)}")
    content = trainer.train(np.concatenate(halves))
    card = _card(lists, features, figures, content)
    return RankerOutcome(TrainedRanker(card=card, content=content), f"ranker: {_spelt(figures)}")


@dataclass(frozen=True, slots=True)
class _Trainer:
    """Makes models of some of the lists."""

    rows: ListRows
    names: list[str]  # Of the features.
    seed: int
    threads: int

    def train(self, numbers: Numbers) -> bytes:
        """A model of these lists, or the first of them, in ONNX."""
        fitted = _fitted(self.rows, numbers[:_FITTED_USERS_MAX])
        booster, anchor = _boosted(fitted, self.names, self.seed, self.threads)
        content = onnx_of(booster, len(self.names), anchor, RELEVANCE)
        _require_same(booster, anchor, self.model(content), fitted.values[:_CHECKED_ROWS])
        return content

    def model(self, content: bytes) -> Model:
        return Model(content, len(self.names), [RELEVANCE], MODEL_NAME)

    def ndcg(self, content: bytes, numbers: Numbers) -> PerUser:
        """Of a model on these lists."""
        model = self.model(content)
        scores = [model.score(self.rows.of(number), _NO_HURRY)[:, 0] for number in numbers.tolist()]
        return self.rows.ndcg(numbers, scores)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Rows of lists one after another; a list with nothing right in it teaches nothing."""

    values: Floats
    labels: npt.NDArray[np.int32]
    lengths: list[int]  # Of the lists.


def _fitted(rows: ListRows, numbers: Numbers) -> _Fitted:
    labels = {number: rows.lists.labels[number][:_FITTED_CANDIDATES] for number in numbers.tolist()}
    useful = [number for number, own in labels.items() if own.any()]
    parts = [rows.of(number)[:_FITTED_CANDIDATES] for number in useful]
    return _Fitted(
        values=np.concatenate(parts),
        labels=np.concatenate([labels[number] for number in useful]).astype(np.int32),
        lengths=[len(part) for part in parts],
    )


def _boosted(fitted: _Fitted, names: list[str], seed: int, threads: int) -> tuple[Any, Anchor]:
    """The trees, and what they are added to."""
    anchor = Anchor(feature=names.index(_ANCHOR_FEATURE), weight=_ANCHOR_WEIGHT, most=_ANCHOR_MOST)
    leaf_rows = min(max(int(len(fitted.values) * _LEAF_SHARE), _LEAF_MIN), _LEAF_MAX)
    parameters = _PARAMETERS | {
        "monotone_constraints": [_direction(name) for name in names],
        "min_data_in_leaf": leaf_rows,
        "seed": seed % 2**31,
        "num_threads": threads,
    }
    columns = lightgbm.Dataset(
        fitted.values,
        fitted.labels,
        group=fitted.lengths,
        init_score=anchor.of(fitted.values),
    )
    booster = lightgbm.train(parameters, columns, _TREES)
    raised = Anchor(feature=anchor.feature, weight=anchor.weight * _ANCHOR_RAISED, most=anchor.most)
    return lightgbm.Booster(model_str=_in_float32(booster.model_to_string())), raised


def _direction(name: str) -> int:
    """1: the score may not fall as the feature grows; -1: nor rise; 0: either."""
    owner, view = name.rsplit(".", 1)
    if owner == ITEM or view == "share":
        return 0
    return -1 if view == "rank" else 1


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


def _judged(trainer: _Trainer, one: Numbers, other: Numbers) -> TrainingFigures:
    """Each half by a model of the other, against the index alone.

    All users judge, and nobody a model that has seen him: a fifth of them would often be too few to
    tell. What is shipped is a model of both halves.
    """
    judging = np.concatenate([one, other])
    rows = trainer.rows
    retrieval = rows.ndcg(judging, [rows.by_index(number) for number in judging.tolist()])
    halves = [trainer.ndcg(trainer.train(b), a) for a, b in ((one, other), (other, one))]
    ranker = np.concatenate(halves)
    gain, gain_low, gain_high = mean_with_bounds(ranker - retrieval)
    return TrainingFigures(
        users_judged=len(judging),
        retrieval_ndcg=float(retrieval.mean()),
        ranker_ndcg=float(ranker.mean()),
        gain=gain,
        gain_low=gain_low,
        gain_high=gain_high,
        tree_count=_TREES,
    )


def _spelt(figures: TrainingFigures) -> str:
    return (
        f"NDCG@20 {figures.ranker_ndcg:.4f}, of retrieval alone {figures.retrieval_ndcg:.4f}:"
        f" {figures.gain:+.4f} [{figures.gain_low:+.4f}, {figures.gain_high:+.4f}]"
        f" on {figures.users_judged} users"
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
