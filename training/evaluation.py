"""A test file against a release: whom to ask for, what is right, what answers are worth. Pure.

Definitions are those of training/metrics.py. Items are places in the item tables. A test item that
the release does not know gets a place of its own below -1: nothing can recommend it, so it counts as
missed. A pair that the release was trained on is left out of what is right, as it is of the lists.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rangefinder.item_tables import ItemTables, Places
from rangefinder.keys import IdKind, IntegerIds, Keys, integers_of_keys, keys_of_integers, keys_of_texts
from rangefinder.texts import TextColumn
from rangefinder.user_tables import UserTables
from training.interactions import Interactions
from training.metrics import Items, PerUser, Quality, mean_with_bounds

_PAD, _FIRST_UNKNOWN = -1, -2
_NOTHING: Places = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Users of a test file, and what would be right for each: columns of one length."""

    user_ids: Sequence[str]
    rows: npt.NDArray[np.int64]  # In the user tables; -1: the release does not know the user.
    relevant: Sequence[Places]  # At least one each.
    history: Sequence[Places]  # What the release has of each, newest first; never recommended.
    unknown_items: int  # Distinct items of the file that the release does not know.
    known_pairs: int  # Pairs of the file that the release was trained on.

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def unknown_users(self) -> int:
        return int((self.rows < 0).sum())

    def sample(self, count: int, seed: int = 0) -> "HeldOut":
        """Some of the users, at random, in their order; all where there are no more."""
        random = np.random.default_rng(seed)
        places = sorted(random.permutation(len(self))[:count].tolist())
        return HeldOut(
            user_ids=[self.user_ids[place] for place in places],
            rows=self.rows[places],
            relevant=[self.relevant[place] for place in places],
            history=[self.history[place] for place in places],
            unknown_items=self.unknown_items,
            known_pairs=self.known_pairs,
        )


def held_out(test: Interactions, kind: IdKind, users: UserTables, items: ItemTables) -> HeldOut:
    """The users of a test file that have something to find. `kind` is that of the release's items."""
    places = items.places_of(_keys_of(test.item_ids, kind))
    is_unknown = places < 0
    places[is_unknown] = _FIRST_UNKNOWN - np.arange(is_unknown.sum())
    ends = np.searchsorted(test.users, np.arange(test.user_count + 1))
    kept_ids, rows, relevant, histories, known_pairs = [], [], [], [], 0
    for code, user_id in enumerate(test.user_ids):
        text = user_id.decode()
        row = users.row_of(text)
        history = _NOTHING if row is None else users.history_of(row)
        own = places[test.items[ends[code] : ends[code + 1]]]
        right = own[~np.isin(own, history)]
        known_pairs += len(own) - len(right)
        if len(right):
            kept_ids.append(text)
            rows.append(-1 if row is None else row)
            relevant.append(right)
            histories.append(history)
    return HeldOut(
        user_ids=kept_ids,
        rows=np.array(rows, np.int64),
        relevant=relevant,
        history=histories,
        unknown_items=int(is_unknown[np.unique(test.items)].sum()),
        known_pairs=known_pairs,
    )


def popular_lists(held: HeldOut, items: ItemTables, count: int) -> Items:
    """The most popular items by the table of the release, without what each user had."""
    popular = items.popular.astype(np.int64)
    return as_block([popular[~np.isin(popular, history)] for history in held.history], count)


def as_block(lists: Sequence[Places], count: int) -> Items:
    """Lists as rows of `count` places; shorter ones are padded with -1."""
    block = np.full((len(lists), count), _PAD, np.int64)
    for row, places in enumerate(lists):
        block[row, : min(len(places), count)] = places[:count]
    return block


def slices_within(sizes: Sequence[int], rows_max: int, total_max: int) -> Iterator[slice]:
    """Cut a sequence so that each part has at most rows_max members whose sizes add up to total_max.

    A member that is larger alone gets a part of its own.
    """
    start, total = 0, 0
    for place, size in enumerate(sizes):
        if place > start and (place - start == rows_max or total + size > total_max):
            yield slice(start, place)
            start, total = place, 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """By how much one system is better than another, over the same users, with 95 % bounds."""

    mean: float
    low: float
    high: float
    base: float  # The mean of what it is compared with.

    @property
    def percent(self) -> tuple[float, float, float]:
        """Mean and bounds in percent of the base; NaN where that is 0."""
        scale = 100 / self.base if self.base else float("nan")
        return self.mean * scale, self.low * scale, self.high * scale


def difference(ours: PerUser, theirs: PerUser) -> Difference:
    """Paired bootstrap over users, see mean_with_bounds."""
    mean, low, high = mean_with_bounds(ours - theirs)
    return Difference(mean=mean, low=low, high=high, base=float(theirs.mean()))


def means_of(quality: Quality) -> tuple[float, float, float]:
    """Recall, NDCG and hit rate over all users."""
    return float(quality.recall.mean()), float(quality.ndcg.mean()), float(quality.hit_rate.mean())


def recall_by_score(found: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> float:
    """Share of `truth` that was found, by score: of equal scores any item counts.

    Both of shape (queries, k), best first; -inf pads what was not found, or is not there.
    """
    exists = np.isfinite(truth)
    last = np.min(np.where(exists, truth, np.inf), axis=1, keepdims=True)
    hits = np.minimum((found >= last).sum(axis=1), exists.sum(axis=1))
    return float(hits.sum() / max(exists.sum(), 1))


def ids_of_places(items: ItemTables, kind: IdKind, places: Places) -> IntegerIds | list[str]:
    """Ids as the client takes them."""
    if items.texts is not None:
        return [items.texts[place].decode() for place in places.tolist()]
    return integers_of_keys(items.keys[places], kind)


def places_of_ids(items: ItemTables, kind: IdKind, ids: IntegerIds | Sequence[str]) -> Places:
    """Places of ids as the client returns them, -1 where the tables do not know one."""
    if isinstance(ids, np.ndarray):
        return items.places_of(keys_of_integers(ids, kind))
    return items.places_of(keys_of_texts([each.encode() for each in ids]))


def _keys_of(ids: IntegerIds | TextColumn, kind: IdKind) -> Keys:
    """Integers among the ids of a text release are their decimals, as a reader may have taken them."""
    if isinstance(ids, TextColumn):
        return keys_of_texts(ids)
    if kind is IdKind.TEXT:
        return keys_of_texts([b"%d" % each for each in ids.tolist()])
    return keys_of_integers(ids, kind)
