"""Keys of a catalogue: cut into balanced ranges, refused where one key would stand for two items."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder import keys as kernel_keys
from rangefinder.errors import InputRefused
from rangefinder.keys import IdKind
from rangefinder.texts import TextColumn
from shard_server.build.keyring import kind_of, make_keyring
from shard_server.build.source import Ids
from tests.kit.oracle import splitmix64

INT64 = st.integers(-(2**63), 2**63 - 1)


def integers(*ids: int) -> Ids:
    return np.array(ids, np.int64)


def texts(*ids: str) -> TextColumn:
    return TextColumn.of(each.encode() for each in ids)


@given(st.sets(INT64, min_size=1, max_size=60), st.data())
def test_shards_are_equally_large(chosen: set[int], data: st.DataObject) -> None:
    """The ranges cover every key once, and the items of any two shards differ by one at most."""
    shard_count = data.draw(st.integers(1, len(chosen)))
    kind = data.draw(st.sampled_from([IdKind.INTEGER, IdKind.ORDERED]))
    ids = data.draw(st.permutations(sorted(chosen)))
    keyring = make_keyring(integers(*ids), kind, shard_count, "x")
    keys = [splitmix64(each) if kind is IdKind.INTEGER else each + 2**63 for each in ids]
    assert keys == keyring.keys.tolist()
    starts = [each.key_start for each in keyring.ranges]
    assert ([0, *starts[1:]], [*starts[1:], 2**64]) == (
        starts,
        [each.key_end for each in keyring.ranges],
    )
    counts = [sum(each.key_start <= key < each.key_end for key in keys) for each in keyring.ranges]
    assert (shard_count, len(ids)) == (len(counts), sum(counts))
    assert max(counts) - min(counts) <= 1
    owners = [
        next(place for place, each in enumerate(keyring.ranges) if each.key_start <= key < each.key_end)
        for key in keys
    ]
    assert owners == keyring.shard_places(keyring.keys).tolist()


def test_fewer_items_than_shards_are_refused() -> None:
    """A shard without items is refused."""
    with pytest.raises(InputRefused, match=r"^x\.npy: 2 items are too few for 3 shards$"):
        make_keyring(integers(1, 2), IdKind.INTEGER, 3, "x.npy")


def test_an_id_that_stands_twice_is_refused_with_its_rows() -> None:
    """Both rows of a repeated id are named, the first ones where it stands more often."""
    with pytest.raises(InputRefused, match=r"^x\.npy: the id -7 stands in rows 1 and 3$"):
        make_keyring(integers(5, -7, 6, -7, -7), IdKind.ORDERED, 1, "x.npy")
    with pytest.raises(InputRefused, match=r"^x\.txt: the id 'sofa' stands in rows 0 and 2$"):
        make_keyring(texts("sofa", "bed", "sofa"), IdKind.TEXT, 1, "x.txt")


def test_two_texts_with_one_key_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collision of keys names both texts and their rows: neither may answer for the other."""

    def collide(column: TextColumn, count: int) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
        del count
        return np.array([len(text) for text in column], np.uint64)

    monkeypatch.setattr(kernel_keys, "hash_texts", collide)
    expected = (
        r"^x\.txt: the ids 'sofa' \(row 1\) and 'lamp' \(row 2\) have the same key: rename one of them$"
    )
    with pytest.raises(InputRefused, match=expected):
        make_keyring(texts("bed", "sofa", "lamp"), IdKind.TEXT, 1, "x.txt")
    assert [3, 4] == make_keyring(texts("bed", "sofa"), IdKind.TEXT, 1, "x.txt").keys.tolist()


def test_the_kind_of_ids_is_what_they_are() -> None:
    """Without being asked for one, integers are INTEGER and texts TEXT."""
    assert [IdKind.INTEGER, IdKind.TEXT] == [
        kind_of(ids, None, "x") for ids in (integers(1), texts("a"))
    ]


@pytest.mark.parametrize(
    ("ids", "asked", "why"),
    [
        (texts("a"), IdKind.INTEGER, "ids are text, but --id-kind is integer"),
        (texts("a"), IdKind.ORDERED, "ids are text, but --id-kind is ordered"),
        (integers(1), IdKind.TEXT, "ids are integers, but --id-kind is text"),
    ],
)
def test_ids_of_the_other_kind_are_refused(ids: Ids, asked: IdKind, why: str) -> None:
    """Ids that are not of the kind asked for are refused, naming both kinds."""
    with pytest.raises(InputRefused, match=rf"^x\.npy: {why}$"):
        kind_of(ids, asked, "x.npy")


@given(st.lists(st.binary(max_size=20), max_size=20), st.data())
def test_a_column_of_texts_is_its_texts(expected: list[bytes], data: st.DataObject) -> None:
    """Texts of any length, empty ones too, are found by row, walked in order, and taken in any."""
    column = TextColumn.of(expected)
    assert (len(expected), expected) == (len(column), list(column))
    rows = data.draw(st.lists(st.integers(0, len(expected) - 1))) if expected else []
    taken = column.take(np.array(rows, np.int64))
    assert [expected[row] for row in rows] == list(taken)
