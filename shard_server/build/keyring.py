"""Keys of a catalogue, and the ranges that cut it into shards of equal size. Pure.

Refuses what would make a key stand for two items: an id twice, or two texts with one key.
"""

from dataclasses import dataclass

import numpy as np

from rangefinder.cluster_map import KeyRange
from rangefinder.errors import InputRefused
from rangefinder.keys import KEY_COUNT, IdKind, Keys, keys_of_integers, keys_of_texts
from rangefinder.texts import TextColumn
from shard_server.build.source import Ids


@dataclass(frozen=True, slots=True)
class Keyring:
    """The key of each item in the order of its source, and the ranges of the shards."""

    keys: Keys
    ranges: tuple[KeyRange, ...]

    def shard_places(self, keys: Keys) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
        """The place in `ranges` of the shard of each key."""
        starts = np.array([keys.key_start for keys in self.ranges], np.uint64)
        return np.searchsorted(starts, keys, side="right") - 1


def kind_of(ids: Ids, asked: IdKind | None, source: str) -> IdKind:
    """The kind of a catalogue's ids: the one asked for, where they are of it. Raises InputRefused."""
    is_text = isinstance(ids, TextColumn)
    if asked is None:
        return IdKind.TEXT if is_text else IdKind.INTEGER
    if asked.is_integer == is_text:
        found = "text" if is_text else "integers"
        raise InputRefused(f"{source}: ids are {found}, but --id-kind is {asked.value}")
    return asked


def make_keyring(ids: Ids, kind: IdKind, shard_count: int, source: str) -> Keyring:
    """Keys and balanced ranges. Raises InputRefused for repeated ids, collisions, too many shards."""
    if shard_count > len(ids):
        raise InputRefused(f"{source}: {len(ids)} items are too few for {shard_count} shards")
    keys = keys_of_texts(ids) if isinstance(ids, TextColumn) else keys_of_integers(ids, kind)
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    repeated = np.flatnonzero(ascending[1:] == ascending[:-1])
    if len(repeated):
        first, second = order[repeated[0]], order[repeated[0] + 1]
        raise InputRefused(f"{source}: {_why_repeated(ids, int(first), int(second))}")
    return Keyring(keys, _balanced_ranges(ascending, shard_count))


def _balanced_ranges(ascending: Keys, shard_count: int) -> tuple[KeyRange, ...]:
    places = [len(ascending) * shard // shard_count for shard in range(1, shard_count)]
    starts = [0, *(int(ascending[place]) for place in places)]
    ends = [*starts[1:], KEY_COUNT]
    return tuple(
        KeyRange(key_start=start, key_end=end) for start, end in zip(starts, ends, strict=True)
    )


def _why_repeated(ids: Ids, first: int, second: int) -> str:
    if not isinstance(ids, TextColumn):
        return f"the id {ids[first]} stands in rows {first} and {second}"
    one, other = ids[first].decode(), ids[second].decode()
    if one == other:
        return f"the id {one!r} stands in rows {first} and {second}"
    return (
        f"the ids {one!r} (row {first}) and {other!r} (row {second}) have the same key:"
        " rename one of them"
    )
