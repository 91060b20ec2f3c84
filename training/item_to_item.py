"""How items near others are learnt: one of several ways, whichever foretells best what was held out."""

from dataclasses import dataclass

from training.ease import ITEM_COUNT_MAX, ease_neighbours
from training.interactions import Interactions
from training.neighbours import Neighbours, neighbours_of


@dataclass(frozen=True, slots=True)
class Cooccurrence:
    """See neighbours.py."""

    popularity_penalty: float

    @property
    def in_words(self) -> str:
        return f"co-occurrence with a penalty of {self.popularity_penalty:g}"


@dataclass(frozen=True, slots=True)
class Ease:
    """See ease.py."""

    regularization: float

    @property
    def in_words(self) -> str:
        return f"EASE with a regularization of {self.regularization:g}"


Way = Cooccurrence | Ease

UNTRIED = Cooccurrence(0.5)
_PENALTIES = (0.5, 0.4, 0.3, 0.2)
_REGULARIZATIONS = (100.0, 500.0, 2_000.0)


def learn_all(interactions: Interactions) -> list[tuple[Way, Neighbours]]:
    """The neighbours by every way that a catalogue of this size allows."""
    counted = neighbours_of(interactions, _PENALTIES)
    ways: list[tuple[Way, Neighbours]] = [
        (Cooccurrence(penalty), found) for penalty, found in zip(_PENALTIES, counted, strict=True)
    ]
    if interactions.item_count <= ITEM_COUNT_MAX:
        ways += [(Ease(each), ease_neighbours(interactions, each)) for each in _REGULARIZATIONS]
    return ways


def learn(interactions: Interactions, way: Way) -> Neighbours:
    """The neighbours by one way."""
    if isinstance(way, Ease):
        return ease_neighbours(interactions, way.regularization)
    (found,) = neighbours_of(interactions, [way.popularity_penalty])
    return found
