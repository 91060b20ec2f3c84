"""A test file against a release: who counts, what is right, and what lists are worth, by hand."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.item_tables import ItemTables, Places
from rangefinder.keys import IdKind, keys_of_integers, keys_of_texts
from rangefinder.texts import TextColumn
from rangefinder.user_tables import UserTables
from training.evaluation import (
    HeldOut,
    difference,
    held_out,
    ids_of_places,
    means_of,
    places_of_ids,
    popular_lists,
    recall_by_score,
    slices_within,
)
from training.interactions import Interactions
from training.metrics import quality_of

IDS = [10, 20, 30, 40, 50]
POPULAR = [30, 10, 50, 20, 40]  # The most popular first.
HAD = {"ann": [30, 10], "bob": [40]}  # Newest first.


def item_tables(kind: IdKind) -> ItemTables:
    keys = keys_for(IDS, kind)
    order = np.argsort(keys)
    texts = None
    if kind is IdKind.TEXT:
        texts = TextColumn.of(str(IDS[place]).encode() for place in order.tolist())
    place_of = {IDS[place]: rank for rank, place in enumerate(order.tolist())}
    return ItemTables(
        keys=keys[order],
        texts=texts,
        feature_names=(),
        features=np.empty((len(IDS), 0), np.float32),
        neighbours=np.empty((len(IDS), 0), np.int32),
        neighbour_scores=np.empty((len(IDS), 0), np.float32),
        popular=np.array([place_of[each] for each in POPULAR], np.int32),
        popular_scores=np.arange(len(IDS), 0, -1, dtype=np.float32),
    )


def keys_for(ids: list[int], kind: IdKind) -> npt.NDArray[np.uint64]:
    if kind is IdKind.TEXT:
        return keys_of_texts([str(each).encode() for each in ids])
    return keys_of_integers(np.array(ids), kind)


def user_tables(items: ItemTables, kind: IdKind) -> UserTables:
    names = sorted(HAD, key=lambda name: int(keys_of_texts([name.encode()])[0]))
    histories = [items.places_of(keys_for(HAD[name], kind)) for name in names]
    return UserTables(
        keys=keys_of_texts([name.encode() for name in names]),
        texts=TextColumn.of(name.encode() for name in names),
        embeddings=np.zeros((len(names), 2), np.float32),
        history=np.concatenate(histories).astype(np.int32),
        history_ends=np.cumsum([len(each) for each in histories]),
    )


def part_of(pairs: dict[str, list[int]]) -> Interactions:
    ids = sorted({each for items in pairs.values() for each in items})
    rows = [
        (user, ids.index(each)) for user, items in enumerate(pairs.values()) for each in sorted(items)
    ]
    users, items = np.array(rows, np.int32).T
    return Interactions(
        users=users,
        items=items,
        ratings=None,
        times=None,
        user_ids=TextColumn.of(name.encode() for name in pairs),
        item_ids=np.array(ids, np.int64),
    )


def evaluated(pairs: dict[str, list[int]], kind: IdKind = IdKind.INTEGER) -> tuple[HeldOut, ItemTables]:
    items = item_tables(kind)
    return held_out(part_of(pairs), kind, user_tables(items, kind), items), items


@pytest.mark.parametrize("kind", IdKind)
def test_users_and_items_are_found_under_every_kind_of_id(kind: IdKind) -> None:
    """What is right for a user are the places of its test items, also where a reader took texts for
    integers; its history is that of the release."""
    held, items = evaluated({"ann": [20, 50], "bob": [10]}, kind)

    assert ["ann", "bob"] == list(held.user_ids)
    right = [sorted(as_integers(items, kind, places)) for places in held.relevant]
    assert [[20, 50], [10]] == right
    assert [[30, 10], [40]] == [as_integers(items, kind, places) for places in held.history]
    assert (0, 0, 0) == (held.unknown_users, held.unknown_items, held.known_pairs)


def as_integers(items: ItemTables, kind: IdKind, places: Places) -> list[int]:
    ids = ids_of_places(items, kind, places)
    assert places.tolist() == places_of_ids(items, kind, ids).tolist()
    return [int(each) for each in ids]


def test_unknown_items_count_as_missed() -> None:
    """An item that the release does not know is in the denominator of recall, and never a hit, not even
    of padding."""
    held, items = evaluated({"ann": [20, 98, 99], "bob": [99]})
    lists = np.full((2, 5), -1)
    lists[0, 0] = places_of_ids(items, IdKind.INTEGER, np.array([20]))[0]
    quality = quality_of(lists, held.relevant)

    assert 2 == held.unknown_items
    assert [1 / 3, 0.0] == quality.recall.tolist()


def test_pairs_that_were_trained_on_are_left_out() -> None:
    """A pair of the release's history is nothing to find; a user with no other is not counted."""
    held, _ = evaluated({"ann": [30, 10], "bob": [40, 20]})

    assert ["bob"] == list(held.user_ids)
    assert (3, 1) == (held.known_pairs, len(held.relevant[0]))


def test_unknown_users_get_popular_items() -> None:
    """A user whom the release does not know has no history, and the popular items in full."""
    held, items = evaluated({"ann": [20], "zoë": [30]})
    lists = popular_lists(held, items, 3)

    assert 1 == held.unknown_users
    assert [[50, 20, 40], [30, 10, 50]] == [as_integers(items, IdKind.INTEGER, row) for row in lists]
    assert [0.0, 1.0] == (quality_of(lists[:, :1], held.relevant).recall).tolist()


def test_short_lists_are_padded() -> None:
    """Where popular items do not fill a list, the rest of it is nothing."""
    held, items = evaluated({"ann": [20]})
    assert [False] * 3 + [True] * 2 == (popular_lists(held, items, 5)[0] == -1).tolist()


def test_a_sample_keeps_columns_together() -> None:
    """Some users of many, the same for the same seed, each with what is its own."""
    held, _ = evaluated({f"u{number}": [IDS[number % 5]] for number in range(40)})
    own = {each: places.tolist() for each, places in zip(held.user_ids, held.relevant, strict=True)}
    sample = held.sample(7, seed=1)

    assert 7 == len(sample) == len(sample.rows) == len(sample.history)
    assert sample.user_ids == held.sample(7, seed=1).user_ids != held.sample(7, seed=2).user_ids
    assert [own[each] for each in sample.user_ids] == [places.tolist() for places in sample.relevant]
    assert held.user_ids == held.sample(41).user_ids


@given(
    sizes=st.lists(st.integers(0, 50), max_size=60),
    rows_max=st.integers(1, 10),
    total_max=st.integers(1, 100),
)
def test_slices_hold_all_in_order_within_bounds(
    sizes: list[int], rows_max: int, total_max: int
) -> None:
    """Every member is in one part; a part is over a bound only if it is one large member."""
    parts = list(slices_within(sizes, rows_max, total_max))

    assert sizes == [size for part in parts for size in sizes[part]]
    for part in parts:
        assert 1 <= part.stop - part.start <= rows_max
        assert sum(sizes[part]) <= total_max or part.stop - part.start == 1


def test_difference_is_paired() -> None:
    """Two systems that differ by the same amount for every user differ by it for certain, however much
    users differ; percent are of the mean of the other one."""
    theirs = np.array([0.1, 0.5, 0.9, 0.5])
    apart = difference(theirs + 0.05, theirs)

    assert np.allclose([0.05] * 3, [apart.mean, apart.low, apart.high])
    assert np.allclose([10.0] * 3, apart.percent)
    assert all(math.isnan(each) for each in difference(theirs, np.zeros(4)).percent)


def test_means_are_over_users() -> None:
    """Recall, NDCG and hit rate of two users, one of whom has both hits of two, the other none."""
    quality = quality_of(np.array([[1, 2], [3, 4]]), [np.array([1, 2]), np.array([9])])
    assert (0.5, 0.5, 0.5) == means_of(quality)


def test_recall_by_score_counts_what_exists() -> None:
    """Ties count whichever was found; what does not exist cannot be missed."""
    nothing = -np.inf
    truth = np.array([[3, 2, 2], [1, nothing, nothing]], np.float32)

    assert 1.0 == recall_by_score(truth, truth)
    assert 0.75 == recall_by_score(np.array([[3, 2, 1], [1, 0, 0]], np.float32), truth)
    assert 0.25 == recall_by_score(np.array([[3, 1, 1], [0, 0, 0]], np.float32), truth)
