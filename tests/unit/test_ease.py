"""EASE against what it stands for: one ridge regression of each item on all the others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.texts import TextColumn
from training import ease, item_to_item
from training.ease import ease_neighbours
from training.interactions import Interactions
from training.item_to_item import Cooccurrence, Ease

ITEM_COUNT = 6


def interactions(histories: list[set[int]]) -> Interactions:
    pairs = [(user, item) for user, items in enumerate(histories) for item in sorted(items)]
    return Interactions(
        users=np.array([user for user, _ in pairs], np.int32),
        items=np.array([item for _, item in pairs], np.int32),
        ratings=None,
        times=None,
        user_ids=TextColumn.of(str(user).encode() for user in range(len(histories))),
        item_ids=np.arange(ITEM_COUNT),
    )


def by_regression(histories: list[set[int]], regularization: float) -> list[dict[int, float]]:
    """Positive weights of each item for the others: each other item regressed on all but itself."""
    had = np.array([[item in items for item in range(ITEM_COUNT)] for items in histories], float)
    weights: list[dict[int, float]] = [{} for _ in range(ITEM_COUNT)]
    for other in range(ITEM_COUNT):
        rest = [item for item in range(ITEM_COUNT) if item != other]
        # Rows of the regularization beside those of the data: least squares alone does the rest.
        left = np.vstack([had[:, rest], np.sqrt(regularization) * np.eye(len(rest))])
        right = np.concatenate([had[:, other], np.zeros(len(rest))])
        solved = np.linalg.lstsq(left, right, rcond=None)[0]
        for item, weight in zip(rest, solved.tolist(), strict=True):
            if weight > 1e-6:
                weights[item][other] = weight
    return weights


@given(
    st.lists(st.sets(st.integers(0, ITEM_COUNT - 1), max_size=ITEM_COUNT), min_size=1, max_size=12),
    st.sampled_from([0.5, 2.0, 100.0]),
)
def test_weights_are_those_of_a_regression_on_all_other_items(
    histories: list[set[int]], regularization: float
) -> None:
    """Every positive weight is the score of a neighbour, the best first; no other is kept."""
    found = ease_neighbours(interactions(histories), regularization, ITEM_COUNT)
    for item, expected in enumerate(by_regression(histories, regularization)):
        is_there = found.places[item] >= 0
        places, scores = found.places[item][is_there].tolist(), found.scores[item][is_there]
        assert (np.diff(scores) <= 0).all()
        given_weights = dict(zip(places, scores.tolist(), strict=True))
        assert set(expected) <= set(given_weights)
        for other, weight in given_weights.items():
            assert np.isclose(expected.get(other, 0.0), weight, atol=1e-5)


def test_only_small_catalogues_are_inverted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One item over the bound, and co-occurrence is all that there is to choose from."""
    world = interactions([{0, 1}, {1, 2}, {0, 1, 2}])
    assert {Cooccurrence, Ease} == {type(way) for way, _ in item_to_item.learn_all(world)}
    monkeypatch.setattr(item_to_item, "ITEM_COUNT_MAX", ITEM_COUNT - 1)
    assert {Cooccurrence} == {type(way) for way, _ in item_to_item.learn_all(world)}
    assert ease.ITEM_COUNT_MAX <= 10_000  # A dense float64 matrix of the square: 800 MB.


def test_what_was_chosen_is_learned_again() -> None:
    """Each way alone gives what it gave when it was compared with the others."""
    world = interactions([{0, 1, 3}, {1, 2}, {0, 1, 2}, {3, 4, 5}, {4, 5}])
    for way, neighbours in item_to_item.learn_all(world):
        alone = item_to_item.learn(world, way)
        assert neighbours.places.tolist() == alone.places.tolist()
        assert neighbours.scores.tolist() == alone.scores.tolist()
