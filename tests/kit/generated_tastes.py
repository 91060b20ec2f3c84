"""A small world of users and items whose structure is known: groups that keep to their own items."""

import numpy as np

from rangefinder.keys import IdKind
from rangefinder.texts import TextColumn
from training.interactions import Interactions
from training.key_order import in_key_order

GROUP_COUNT = 6


def group_of(number: int) -> int:
    """The group that a user or item belongs to, by its id."""
    return number % GROUP_COUNT


def generated_pairs(
    user_count: int = 300, item_count: int = 120, per_user: int = 15, seed: int = 1
) -> list[tuple[int, int]]:
    """Pairs without repeats: most within a group; some items are more popular than others."""
    random = np.random.default_rng(seed)
    appeal = 1 / (1 + np.arange(item_count) // GROUP_COUNT)  # The same in each group.
    pairs: set[tuple[int, int]] = set()
    for user in range(user_count):
        is_own = np.arange(item_count) % GROUP_COUNT == group_of(user)
        weights = appeal * np.where(is_own, 0.9 * GROUP_COUNT, 0.1)
        items = random.choice(item_count, per_user, replace=False, p=weights / weights.sum())
        pairs |= {(user, int(item)) for item in items}
    return sorted(pairs)


def interactions_of_pairs(
    pairs: list[tuple[int, int]], times: list[float] | None = None
) -> Interactions:
    """Pairs of integers as interactions in the order of keys; texts of users are decimal."""
    users = sorted({user for user, _ in pairs})
    items = sorted({item for _, item in pairs})
    order = sorted(range(len(pairs)), key=lambda row: pairs[row])
    return in_key_order(
        Interactions(
            users=np.array([users.index(pairs[row][0]) for row in order], np.int32),
            items=np.array([items.index(pairs[row][1]) for row in order], np.int32),
            ratings=None,
            times=None if times is None else np.array([times[row] for row in order]),
            user_ids=TextColumn.of(str(user).encode() for user in users),
            item_ids=np.array(items, np.int64),
        ),
        IdKind.INTEGER,
    )


def pairs_of(interactions: Interactions) -> list[tuple[int, int]]:
    """The pairs again, by their ids."""
    ids = interactions.item_ids
    assert not isinstance(ids, TextColumn)
    return [
        (int(interactions.user_ids[user]), int(ids[item]))
        for user, item in zip(interactions.users.tolist(), interactions.items.tolist(), strict=True)
    ]
