"""Item features: shares of the catalogue, that mean the same whatever the history's length."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.texts import TextColumn
from training.interactions import Interactions
from training.item_features import item_features

USER_COUNT, ITEM_COUNT = 8, 6
PAIRS = st.sets(st.tuples(st.integers(0, USER_COUNT - 1), st.integers(0, ITEM_COUNT - 1)), max_size=30)


def interactions(pairs: set[tuple[int, int]], ratings: list[float] | None = None) -> Interactions:
    ordered = np.array(sorted(pairs), np.int32).reshape(-1, 2)
    return Interactions(
        users=ordered[:, 0],
        items=ordered[:, 1],
        ratings=None if ratings is None else np.array(ratings, np.float32),
        times=None,
        user_ids=TextColumn.of(str(number).encode() for number in range(USER_COUNT)),
        item_ids=np.arange(ITEM_COUNT),
    )


def columns(of: Interactions) -> dict[str, list[float]]:
    names, values = item_features(of)
    assert (ITEM_COUNT, len(names)) == values.shape
    assert values.dtype == np.float32
    return dict(zip(names, values.T.tolist(), strict=True))


@given(PAIRS)
def test_each_feature_is_the_share_that_has_less(pairs: set[tuple[int, int]]) -> None:
    """Half of those that have as much count as less: by hand, over every pair of items."""
    found = columns(interactions(pairs))
    counts = [sum(item == own for _, item in pairs) for own in range(ITEM_COUNT)]
    lengths = [sum(user == own for user, _ in pairs) for own in range(USER_COUNT)]
    activity = [
        np.mean([math.log(lengths[user]) for user, item in pairs if item == own])
        if counts[own]
        else None
        for own in range(ITEM_COUNT)
    ]
    assert shares(counts) == pytest.approx(found["popularity"], nan_ok=True)
    # Means are compared as they are rounded: equal ones may differ in the last digit.
    rounded = [None if value is None else round(float(value), 9) for value in activity]
    if len(set(rounded)) == len(rounded):
        assert shares(rounded) == pytest.approx(found["activity"], nan_ok=True)
    assert {"popularity", "activity"} == found.keys()


def shares(values: "list[float | None] | list[int]") -> list[float]:
    known = [value for value in values if value is not None]
    return [
        math.nan
        if own is None
        else sum((other < own) + 0.5 * (other == own) for other in known) / len(known)
        for own in values
    ]


def test_ratings_are_a_feature_where_there_are_any() -> None:
    """Means by item: 5, 3 and 1; an item without interactions has none."""
    pairs = {(0, 0), (0, 1), (1, 1), (2, 2)}
    found = columns(interactions(pairs, [5.0, 2.0, 4.0, 1.0]))
    expected = [5 / 6, 0.5, 1 / 6, math.nan, math.nan, math.nan]
    assert expected == pytest.approx(found["rating"], nan_ok=True)


def test_twice_the_history_changes_nothing() -> None:
    """Every user once more, under another number: counts double, features stay."""
    pairs = {(0, 0), (0, 1), (1, 1), (2, 1), (2, 3)}
    doubled = pairs | {(user + 4, item) for user, item in pairs}
    before, after = columns(interactions(pairs)), columns(interactions(doubled))
    for name, values in before.items():
        assert values == pytest.approx(after[name], nan_ok=True)
