"""Columns as a reader collects them, block by block, and the interactions that they make. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rangefinder.errors import InputRefused
from rangefinder.keys import TEXT_BYTES_MAX, IdKind, IntegerIds
from rangefinder.texts import TextColumn
from rangefinder.user_tables import USER_ID_BYTES_MAX
from training.interactions import Codes, Interactions

Ratings = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]

RATING_MAX = 1e9  # Of either sign: stars, plays or money; beyond it a column is something else.
TIME_MAX_S = 253_402_300_800.0  # The end of the year 9999.

_INTEGER = re.compile(rb"[+-]?[0-9]{1,20}")


class MalformedValue(Exception):
    """A value that no interactions can hold; the reader finds out where it stands."""


class Vocabulary(dict[bytes, int]):
    """Codes of texts, counted from 0 in the order in which they come."""

    def __missing__(self, text: bytes) -> int:
        code = self[text] = len(self)
        return code

    def codes_of(self, texts: Sequence[bytes]) -> Codes:
        return np.fromiter(map(self.__getitem__, texts), np.int32, len(texts))


@dataclass(frozen=True, slots=True)
class RawColumns:
    """What was read, row by row of the file; all blocks have the columns of the first."""

    is_text: bool = False  # Of the items: what looks like integers is text all the same.
    user_texts: Vocabulary = field(default_factory=Vocabulary)
    item_texts: Vocabulary = field(default_factory=Vocabulary)
    users: list[Codes] = field(default_factory=list)
    items: list[Codes] = field(default_factory=list)
    ratings: list[Ratings] = field(default_factory=list)
    times: list[Times] = field(default_factory=list)

    def append(
        self,
        users: Codes,
        items: Codes,
        ratings: npt.NDArray[np.float64] | None = None,
        times: Times | None = None,
    ) -> None:
        """Raises MalformedValue for ratings or times out of range."""
        self.users.append(users)
        self.items.append(items)
        if ratings is not None:
            _require(ratings, -RATING_MAX, RATING_MAX)
            self.ratings.append(ratings.astype(np.float32))
        if times is not None:
            _require(times, 0, np.nextafter(TIME_MAX_S, 0))
            self.times.append(times)

    def require_ids(self, id_kind: IdKind | None) -> None:
        """Raises MalformedValue for ids that are empty, too long or not of the kind asked for."""
        for texts, bytes_max in (
            (self.user_texts, USER_ID_BYTES_MAX),
            (self.item_texts, TEXT_BYTES_MAX),
        ):
            if any(not 0 < len(text) <= bytes_max or b"\0" in text for text in texts):
                raise MalformedValue
        is_integer = id_kind is not None and id_kind.is_integer
        if is_integer and not all(map(is_int64, self.item_texts)):
            raise MalformedValue


@dataclass(frozen=True, slots=True)
class Read:
    """Interactions, and how many rows of the file repeated a pair."""

    interactions: Interactions
    repeated_count: int


def is_int64(text: bytes) -> bool:
    return bool(_INTEGER.fullmatch(text)) and -(2**63) <= int(text) < 2**63


def interactions_of(raw: RawColumns, id_kind: IdKind | None, source: str) -> Read:
    """Pairs once each, by user and item. Of a repeated pair the latest counts, or the last in the file.

    Items are integers where all are, or where that is asked for. Raises InputRefused for too little.
    """
    users, user_ids = _in_order(raw.user_texts, raw.users)
    items, item_ids = _as_ids(raw, id_kind)
    _require_enough(len(user_ids), len(item_ids), source)
    ratings = np.concatenate(raw.ratings) if raw.ratings else None
    times = np.concatenate(raw.times) if raw.times else None
    kept = _last_of_each(users, items, len(item_ids), times)
    return Read(
        Interactions(
            users=users[kept],
            items=items[kept],
            ratings=None if ratings is None else ratings[kept],
            times=None if times is None else times[kept],
            user_ids=user_ids,
            item_ids=item_ids,
        ),
        repeated_count=len(users) - len(kept),
    )


def _require(values: npt.NDArray[np.float64], low: float, high: float) -> None:
    if not ((values >= low) & (values <= high)).all():  # NaN is neither.
        raise MalformedValue


def _require_enough(user_count: int, item_count: int, source: str) -> None:
    if user_count < 2 or item_count < 2:
        raise InputRefused(
            f"{source}: {user_count} user{'s' * (user_count != 1)} and"
            f" {item_count} item{'s' * (item_count != 1)}:"
            " there is nothing to learn from fewer than 2 users and 2 items"
        )


def _in_order(texts: Vocabulary, parts: list[Codes]) -> tuple[Codes, TextColumn]:
    """Codes in the order of the texts, so that they do not depend on the order of the rows."""
    ascending = sorted(texts)
    new_code = np.empty(len(texts), np.int32)
    new_code[[texts[text] for text in ascending]] = np.arange(len(texts))
    return new_code[_joined(parts)], TextColumn.of(ascending)


def _as_ids(raw: RawColumns, id_kind: IdKind | None) -> tuple[Codes, IntegerIds | TextColumn]:
    wanted = id_kind.is_integer if id_kind is not None else not raw.is_text
    if not wanted or not all(map(is_int64, raw.item_texts)):
        return _in_order(raw.item_texts, raw.items)
    values = np.fromiter(map(int, raw.item_texts), np.int64, len(raw.item_texts))
    ids, new_code = np.unique(values, return_inverse=True)  # 7, +7 and 007 are one item.
    return new_code.astype(np.int32)[_joined(raw.items)], ids


def _joined(parts: list[Codes]) -> Codes:
    return np.concatenate([np.empty(0, np.int32), *parts])


def _last_of_each(
    users: Codes, items: Codes, item_count: int, times: Times | None
) -> npt.NDArray[np.int64]:
    """Rows of the last of each pair, in the order of the pairs."""
    pairs = users.astype(np.int64) * item_count + items
    if times is None:
        order = np.argsort(pairs, kind="stable")
    else:
        by_time = np.argsort(times, kind="stable")
        order = by_time[np.argsort(pairs[by_time], kind="stable")]
    ordered = pairs[order]
    return order[np.append(ordered[1:] != ordered[:-1], True)] if len(order) else order
