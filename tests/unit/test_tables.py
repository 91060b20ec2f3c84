"""Tables of items and users in a release: read as they were written, refused where damaged."""

from pathlib import Path

import numpy as np
import pytest

from rangefinder import release
from rangefinder.errors import ReleaseDamaged
from rangefinder.item_tables import ItemTables
from rangefinder.keys import IdKind, keys_of_texts
from rangefinder.metric import Metric
from rangefinder.release import FORMAT, IndexParameters, ReleaseManifest, ReleaseShard
from rangefinder.texts import TextColumn
from rangefinder.user_tables import UserTables

USERS = ["7", "-1", "Zoë", "x" * 256]
HISTORIES = [[2, 0], [], [1], [0, 1, 2]]


def item_tables() -> ItemTables:
    return ItemTables(
        keys=np.array([3, 8, 2**64 - 1], np.uint64),
        texts=TextColumn.of([b"a", b"", "Å".encode()]),
        feature_names=("popularity", "age"),
        features=np.array([[1, 2], [3, np.nan], [5, 6]], np.float32),
        neighbours=np.array([[1, 2], [0, -1], [-1, -1]], np.int32),
        neighbour_scores=np.array([[1, 0.5], [0.5, 0], [0, 0]], np.float32),
        popular=np.array([2, 0], np.int32),
        popular_scores=np.array([9, 1], np.float32),
    )


def user_tables() -> UserTables:
    texts = TextColumn.of(user.encode() for user in USERS)
    keys = keys_of_texts(texts)
    order = np.argsort(keys)
    histories = [HISTORIES[row] for row in order]
    return UserTables(
        keys=keys[order],
        texts=texts.take(order),
        embeddings=np.arange(8, dtype=np.float32).reshape(4, 2)[order],
        history=np.array([place for each in histories for place in each], np.int32),
        history_ends=np.cumsum([len(each) for each in histories]).astype(np.int64),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A release that holds nothing but tables."""
    manifest = ReleaseManifest(
        format=FORMAT,
        name="r",
        dimension=2,
        metric=Metric.INNER_PRODUCT,
        id_kind=IdKind.TEXT,
        item_count=0,
        created_at_s=0,
        recall_target=0.98,
        index=IndexParameters(),
        shards=(ReleaseShard(name="s-0", key_start=0, key_end=2**64, item_count=0, segments=()),),
        items=item_tables().save(tmp_path),
        users=user_tables().save(tmp_path),
        files=release.list_files(tmp_path),
    )
    release.write_manifest(tmp_path, manifest)
    return tmp_path


def test_item_tables_are_read_as_they_were_written(root: Path) -> None:
    """Every column, the texts and the names of features come back; keys lead to their places."""
    read, written = ItemTables.open(root, release.read_manifest(root)), item_tables()
    assert read is not None and read.texts is not None and written.texts is not None
    assert list(written.texts) == list(read.texts)
    assert written.feature_names == read.feature_names
    for name in ("keys", "features", "neighbours", "neighbour_scores", "popular", "popular_scores"):
        assert np.array_equal(getattr(written, name), getattr(read, name), equal_nan=True)
    assert [-1, 0, 1, -1, 2] == read.places_of(np.array([0, 3, 8, 9, 2**64 - 1], np.uint64)).tolist()


def test_users_are_found_by_their_ids_alone(root: Path) -> None:
    """Each user's row leads to its embedding and history; an unknown id to none."""
    users = UserTables.open(root, release.read_manifest(root))
    assert users is not None
    for number, user in enumerate(USERS):
        row = users.row_of(user)
        assert row is not None
        assert [2 * number, 2 * number + 1] == users.embeddings[row].tolist()
        assert HISTORIES[number] == users.history_of(row).tolist()
    assert [None, None] == [users.row_of(user) for user in ("", "unknown")]


def test_a_user_whose_key_another_has_is_unknown(root: Path) -> None:
    """Two ids of one key: only the one that is kept is found, never one for the other."""
    users = UserTables.open(root, release.read_manifest(root))
    assert users is not None
    other = TextColumn.of(b"other" for _ in range(len(users.texts)))
    collided = UserTables(
        keys=users.keys,
        texts=other,
        embeddings=users.embeddings,
        history=users.history,
        history_ends=users.history_ends,
    )
    assert [None] * 4 == [collided.row_of(user) for user in USERS]


@pytest.mark.parametrize("name", ["items/keys.npy", "items/texts.npy", "users/embeddings.npy"])
def test_damaged_tables_are_refused(root: Path, name: str) -> None:
    """A flipped byte is found by its checksum, and the file is named."""
    manifest = release.read_manifest(root)
    content = bytearray((root / name).read_bytes())
    content[-1] ^= 1
    (root / name).write_bytes(content)
    opener = ItemTables.open if name.startswith("items") else UserTables.open
    with pytest.raises(ReleaseDamaged, match=name):
        opener(root, manifest)
