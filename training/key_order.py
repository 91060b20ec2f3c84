"""Interactions whose codes are places in a release: users and items in order of their keys. Pure."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rangefinder.keys import IdKind, IntegerIds, Keys, keys_of_integers, keys_of_texts
from rangefinder.texts import TextColumn
from training.interactions import Codes, Interactions


def item_keys(ids: IntegerIds | TextColumn, kind: IdKind) -> Keys:
    """The key of each item."""
    return keys_of_texts(ids) if isinstance(ids, TextColumn) else keys_of_integers(ids, kind)


def in_key_order(interactions: Interactions, kind: IdKind) -> Interactions:
    """The same pairs, renumbered: a code is then the place of its id in a release's tables."""
    by_user = np.argsort(keys_of_texts(interactions.user_ids), kind="stable")
    by_item = np.argsort(item_keys(interactions.item_ids, kind), kind="stable")
    users = _places(by_user)[interactions.users]
    items = _places(by_item)[interactions.items]
    order = np.lexsort((items, users))
    ids = interactions.item_ids
    renumbered = replace(
        interactions,
        users=users,
        items=items,
        user_ids=interactions.user_ids.take(by_user),
        item_ids=ids.take(by_item) if isinstance(ids, TextColumn) else ids[by_item],
    )
    return renumbered.part(order)


def _places(order: npt.NDArray[np.int64]) -> Codes:
    places = np.empty(len(order), np.int32)
    places[order] = np.arange(len(order))
    return places
