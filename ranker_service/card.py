"""The card of a ranker: what the model is, what it reads, and how good it was when it was trained.

ranker/card.yaml     this card
ranker/model.onnx    the model, whose input has the card's features as columns, in its order
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from rangefinder import release
from rangefinder.documents import STRICT, Count, Name, Positive, from_yaml, to_yaml
from rangefinder.errors import InputRefused, ReleaseDamaged
from rangefinder.release import RankerDescription, ReleaseManifest
from rangefinder.storage import read_text, write_text
from ranker_service.features import ITEM, RETRIEVAL_RANK, Floats, known_features
from ranker_service.model import Model

FOLDER = "ranker"
CARD, MODEL = f"{FOLDER}/card.yaml", f"{FOLDER}/model.onnx"
RELEVANCE = "relevance"  # The head that orders by what the user is likely to want.


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One column of the model's input; see features.py."""

    __pydantic_config__: ClassVar = STRICT

    name: Name
    default: float  # Where it is not known.


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One objective that the model scores."""

    __pydantic_config__: ClassVar = STRICT

    name: Name
    weight: float  # In the final score, where the request says nothing.


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFigures:
    """NDCG@20 of models on users that they had not seen, and the gain with its 95 % bounds."""

    __pydantic_config__: ClassVar = STRICT

    users_judged: Count
    retrieval_ndcg: float
    ranker_ndcg: float
    gain: float
    gain_low: float
    gain_high: float
    tree_count: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Beside the model in a release."""

    __pydantic_config__: ClassVar = STRICT

    model: Name
    version: Name
    sources: tuple[Name, ...]  # Whose scores it reads.
    item_features: tuple[Name, ...]  # That it reads.
    features: tuple[Feature, ...]
    heads: tuple[Head, ...]
    training: TrainingFigures

    def __post_init__(self) -> None:
        if {ITEM, RETRIEVAL_RANK.partition(".")[0]} & set(self.sources):
            raise InputRefused("sources: a name that features of no source begin with")
        unknown = [name for name in self.feature_names if name not in self._known]
        if unknown:
            raise InputRefused(f"features: no {unknown[0]}: see ranker_service/features.py")
        for what, names in (("features", self.feature_names), ("heads", self.head_names)):
            if not names or len(set(names)) < len(names):
                raise InputRefused(f"{what}: none, or one of them twice")

    @property
    def _known(self) -> frozenset[str]:
        return known_features(self.sources, self.item_features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def head_names(self) -> tuple[str, ...]:
        return tuple(head.name for head in self.heads)

    @property
    def weights(self) -> Floats:
        """Of each head, where the request says nothing."""
        return np.array([head.weight for head in self.heads], np.float32)

    @property
    def defaults(self) -> Floats:
        """Of each feature."""
        return np.array([feature.default for feature in self.features], np.float32)


def open_model(root: Path, manifest: ReleaseManifest) -> tuple[Card, Model]:
    """Verify and load a release's ranker. Raises ReleaseDamaged; InputRefused where there is none."""
    about = manifest.ranker
    if about is None:
        raise InputRefused(f"{root}: release {manifest.name} has no ranker: serve it without one")
    release.verify(root, manifest, manifest.files_below(FOLDER))
    try:
        card = from_yaml(read_text(root / CARD), Card, str(root / CARD))
        content = (root / MODEL).read_bytes()
    except (InputRefused, OSError) as error:
        raise ReleaseDamaged(str(error)) from None
    if (card.model, card.version) != (about.model, about.version):
        raise ReleaseDamaged(
            f"{root / CARD}: {card.model} {card.version}, not {about.model} {about.version}"
        )
    return card, Model(content, len(card.features), card.head_names, str(root / MODEL))


def save_model(root: Path, card: Card, content: bytes) -> RankerDescription:
    """Write a ranker into a release that is being built."""
    (root / FOLDER).mkdir()
    (root / MODEL).write_bytes(content)
    write_text(root / CARD, to_yaml(card))
    return RankerDescription(model=card.model, version=card.version)
