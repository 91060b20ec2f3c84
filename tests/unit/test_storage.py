"""Files and folders that are there whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from rangefinder import storage
from rangefinder.errors import AddressInUse, InputRefused, ReleaseDamaged
from rangefinder.storage import (
    ArrayWriter,
    checksum,
    exclusive,
    map_array,
    new_folder,
    read_text,
    save_array,
    write_text,
)


def fail(*arguments: object) -> None:
    del arguments
    raise OSError(28, "No space left on device")


def test_a_text_replaces_the_one_before(tmp_path: Path) -> None:
    """What is written is read, in place of what was there, and nothing else is left beside it."""
    path = tmp_path / "a.txt"
    for text in ("one\n", "", "zwei ≥ 日本\r\n"):
        write_text(path, text)
        assert text.encode() == path.read_bytes()
        assert [path] == list(tmp_path.iterdir())


class Disk:
    """Notes what is synced, by inode, and what stands in a place at that moment."""

    def __init__(self, patch: pytest.MonkeyPatch, place: Path) -> None:
        self.place = place
        self.synced: list[tuple[int, bool]] = []  # Inode, and whether the place was taken by then.
        patch.setattr(os, "fsync", self._sync)

    def _sync(self, descriptor: int) -> None:
        self.synced.append((os.fstat(descriptor).st_ino, self.place.exists()))


def test_a_text_is_on_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the content is synced, then it is renamed, then the folder is synced."""
    path = tmp_path / "a.txt"
    disk = Disk(monkeypatch, path)
    write_text(path, "text")
    assert [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)] == disk.synced


def test_a_folder_is_on_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First every file and folder in it is synced, then it is renamed, then its parent is synced."""
    disk = Disk(monkeypatch, tmp_path / "out")
    with new_folder(tmp_path / "out") as folder:
        fill(folder)
    inner = [tmp_path / "out" / name for name in (".", "inner", "inner/a")]
    assert {(path.stat().st_ino, False) for path in inner} == set(disk.synced[:-1])
    assert (tmp_path.stat().st_ino, True) == disk.synced[-1]


@pytest.mark.parametrize("step", ["sync", "sync_folder"])
def test_a_failed_write_leaves_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A full disk is an InputRefused that names the file; no temporary file stays."""
    path = tmp_path / "a.txt"
    path.write_text("before")
    monkeypatch.setattr(storage, step, fail)
    with pytest.raises(InputRefused, match=r"a\.txt: no space left on device"):
        write_text(path, "after")
    assert [path] == list(tmp_path.iterdir())
    # Once renamed the new text is in place; before, the old one is untouched.
    assert {"sync": "before", "sync_folder": "after"}[step] == path.read_text()


def test_a_text_that_cannot_be_encoded_leaves_nothing_beside(tmp_path: Path) -> None:
    """A bug of the caller leaves the file as it was, and no temporary one."""
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert ("before", [path]) == (path.read_text(), list(tmp_path.iterdir()))


@pytest.mark.parametrize("place", ["missing/a.txt", "file/a.txt", "x" * 300, "folder"])
def test_where_no_file_can_be_is_refused(tmp_path: Path, place: str) -> None:
    """A folder that is missing, a file in its place, or a name too long is one clear line."""
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(InputRefused) as refused:
        write_text(tmp_path / place, "text")
    assert str(refused.value).startswith(f"{tmp_path / place}: ")
    assert {"file", "folder"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("name", "why"),
    [("missing", "no such file"), ("folder", "is a directory"), ("latin", "not UTF-8 text")],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str, why: str) -> None:
    """A missing file, a folder and bytes that are no UTF-8 are refused by name."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin").write_bytes(b"\xe9t\xe9")
    with pytest.raises(InputRefused, match=f"{name}: {why}"):
        read_text(tmp_path / name)


def fill(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "a").write_text("a")


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_takes_its_place_whole(tmp_path: Path, is_there: bool) -> None:
    """A folder that is built well stands in its place, also where an empty one was before."""
    path = tmp_path / "parent" / "out"
    if is_there:
        path.mkdir(parents=True)
    with new_folder(path) as folder:
        assert is_there == path.exists()
        fill(folder)
    assert {"parent", "parent/out", "parent/out/inner", "parent/out/inner/a"} == names_in(tmp_path)


def test_a_folder_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    """Where building fails, the error comes through and nothing is left."""
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out") as folder:
        fill(folder)
        raise ZeroDivisionError
    assert set() == names_in(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A full disk while building is one clear line, and nothing is left."""
    with (
        pytest.raises(InputRefused, match=r"out: no space left"),
        new_folder(tmp_path / "out") as folder,
    ):
        fill(folder)
        fail()
    assert set() == names_in(tmp_path)


def test_what_a_killed_attempt_left_is_removed(tmp_path: Path) -> None:
    """The next attempt begins anew: a file of the one before is not in its folder."""
    left = tmp_path / ".out.unfinished"
    (left / "inner").mkdir(parents=True)
    (left / "old").touch()
    (left / "inner" / "older").touch()
    with new_folder(tmp_path / "out") as again:
        fill(again)
    assert {"out", "out/inner", "out/inner/a"} == names_in(tmp_path)


def not_empty(path: Path) -> None:
    path.mkdir()
    (path / "mine").touch()


@pytest.mark.parametrize("occupy", [not_empty, Path.touch])
def test_a_place_that_is_taken_is_refused(tmp_path: Path, occupy: Callable[[Path], None]) -> None:
    """A file, or a folder that is not empty, is refused and kept."""
    occupy(tmp_path / "out")
    before = names_in(tmp_path)
    with pytest.raises(InputRefused, match=r"out: exists already"), new_folder(tmp_path / "out"):
        raise AssertionError("must not begin")
    assert before == names_in(tmp_path)


@pytest.mark.parametrize("place", ["file/out", "x" * 300])
def test_where_no_folder_can_be_is_refused(tmp_path: Path, place: str) -> None:
    """A file among the parents, or a name too long, is one clear line."""
    (tmp_path / "file").touch()
    with pytest.raises(InputRefused), new_folder(tmp_path / place):
        raise AssertionError("must not begin")
    assert {"file"} == names_in(tmp_path)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(3, 2),
        np.arange(3, dtype=np.uint64),
        np.empty((0, 4), np.float32),
        np.empty(0, np.uint8),
        np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    ],
    ids=["matrix", "column", "no rows", "no bytes", "by column"],
)
def test_an_array_is_mapped_as_it_was_saved(tmp_path: Path, array: npt.NDArray[np.generic]) -> None:
    """Saving and mapping changes nothing, and a mapped array cannot be written to."""
    save_array(tmp_path / "a.npy", array)
    mapped = map_array(tmp_path / "a.npy", array.dtype, array.shape)
    assert (array.dtype, array.tolist()) == (mapped.dtype, mapped.tolist())
    assert np.load(tmp_path / "a.npy").tolist() == array.tolist()
    if array.size:
        assert not mapped.flags.writeable


def test_an_array_is_written_in_parts(tmp_path: Path) -> None:
    """Rows written one after another, of another type too, are the array; a missing row is a bug."""
    writer = ArrayWriter(tmp_path / "a.npy", np.float32, (3, 2))
    writer.write(np.array([[1, 2], [3, 4]]))
    with pytest.raises(AssertionError, match="1 rows are missing"):
        writer.close()
    writer.write(np.array([[5, 6]], np.float64))
    writer.close()
    assert [[1, 2], [3, 4], [5, 6]] == map_array(tmp_path / "a.npy", np.float32, (3, 2)).tolist()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", ""),
        (b"\x93NUMPY\x01\x00", ""),
        (np.zeros((3, 2), np.float64), r"holds float64\(3, 2\), not "),
        (np.zeros((2, 3), np.float32), r"holds float32\(2, 3\), not "),
        ("cut", ""),
    ],
    ids=["missing", "empty", "header cut", "other type", "other shape", "rows cut"],
)
def test_another_array_is_damage(tmp_path: Path, content: object, why: str) -> None:
    """A file that is not the array that was written is ReleaseDamaged, and named."""
    path = tmp_path / "a.npy"
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut":
        np.save(path, np.zeros((3, 2), np.float32))
        os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ReleaseDamaged, match=f"a.npy: .*{why}"):
        map_array(path, np.float32, (3, 2))


def test_a_checksum_is_xxh3_of_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XXH3-128 as published for nothing; the size of the blocks changes nothing; missing is damage."""
    path = tmp_path / "a"
    path.touch()
    assert "99aa06d3014798d86001c324468d497f" == checksum(path)
    path.write_bytes(bytes(range(256)) * 50)
    whole = checksum(path)
    monkeypatch.setattr(storage, "BLOCK_BYTES", 7)
    assert whole == checksum(path)
    with pytest.raises(ReleaseDamaged, match="missing: no such file"):
        checksum(tmp_path / "missing")


def test_a_second_holder_is_refused(tmp_path: Path) -> None:
    """While a lock is held nobody else gets it; afterwards anybody does."""
    path = tmp_path / "cluster" / "lock"
    path.parent.mkdir()
    with exclusive(path, "rangefinder up"):
        refused = pytest.raises(AddressInUse, match="cluster: in use by another rangefinder up")
        with refused, exclusive(path, "rangefinder up"):
            raise AssertionError("must not begin")
    with exclusive(path, "rangefinder up"):
        pass


def test_a_folder_has_one_builder(tmp_path: Path) -> None:
    """A second attempt is refused while the first is under way, and takes nothing from it."""
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("kept")
        with pytest.raises(AddressInUse, match="another command"), new_folder(tmp_path / "out"):
            pass
    assert "kept" == (tmp_path / "out" / "a").read_text()
