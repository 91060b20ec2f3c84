"""Releases on disk: read as they were written, refused where anything is missing or changed."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefinder.errors import InputRefused, RangefinderError, ReleaseDamaged
from rangefinder.keys import IdKind
from rangefinder.metric import Metric
from rangefinder.release import (
    FORMAT,
    MANIFEST,
    IndexParameters,
    ReleaseManifest,
    ReleaseShard,
    list_files,
    read_manifest,
    verify,
    write_manifest,
)

CONTENT = bytes(range(256)) + b"\0" * 44
FILES = ("shards/s-0/segment-0/rows.npy", "shards/s-01/x", "probes/queries.npy")


def write_release(root: Path) -> ReleaseManifest:
    """A release of three files."""
    for name in FILES:
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(CONTENT)
    manifest = ReleaseManifest(
        format=FORMAT,
        name="r-1",
        dimension=8,
        metric=Metric.INNER_PRODUCT,
        id_kind=IdKind.INTEGER,
        item_count=5,
        created_at_s=1e9,
        recall_target=0.98,
        index=IndexParameters(links=8),
        shards=(
            ReleaseShard(name="s-0", key_start=0, key_end=2**64, item_count=5, segments=("segment-0",)),
        ),
        files=list_files(root),
    )
    write_manifest(root, manifest)
    return manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_release(tmp_path / "release")
    return tmp_path / "release"


@pytest.fixture(scope="module")
def kept_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release for the examples of one property, each of which leaves it as it was."""
    root = tmp_path_factory.mktemp("kept") / "release"
    write_release(root)
    return root


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Reading gives back what was written; the files are those of the folder, with their sizes."""
    manifest = write_release(tmp_path)
    assert manifest == read_manifest(tmp_path)
    assert dict.fromkeys(FILES, 300) == {name: file.size for name, file in manifest.files.items()}
    verify(tmp_path, manifest, manifest.files)


def test_files_below_a_folder(root: Path) -> None:
    """The files of a shard are those in its folder, not those of a shard whose name begins like it."""
    manifest = read_manifest(root)
    assert [FILES[0]] == list(manifest.files_below("shards/s-0"))


def test_no_manifest_is_no_release(tmp_path: Path) -> None:
    """A folder without a manifest is refused: it is none, or its build did not finish."""
    with pytest.raises(InputRefused, match=r"release\.yaml: no such file: .* is not a release"):
        read_manifest(tmp_path)


def seal(root: Path, text: str) -> None:
    """Write a manifest with the checksum that its text needs."""
    import xxhash

    digest = xxhash.xxh3_128_hexdigest(text.encode())
    (root / MANIFEST).write_text(f"{text}checksum: {digest}\n")


def body_of(root: Path) -> str:
    return (root / MANIFEST).read_text().rpartition("checksum: ")[0]


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_newer_format_is_named(root: Path, is_sealed: bool) -> None:
    """A release of a newer Rangefinder is refused as such, whatever else stands in it."""
    body = body_of(root).replace(f"format: {FORMAT}\n", f"format: {FORMAT + 1}\nnews: [1]\n")
    if is_sealed:
        seal(root, body)
    else:
        (root / MANIFEST).write_text(body)
    with pytest.raises(
        InputRefused, match=rf"release\.yaml: format {FORMAT + 1} is newer than .*\({FORMAT}\): upgrade"
    ):
        read_manifest(root)


EDITS: dict[str, Callable[[str], str]] = {
    "value": lambda text: text.replace("dimension: 8", "dimension: 9"),
    "line removed": lambda text: text.replace("name: r-1\n", ""),
    "line added": lambda text: text + "more: 1\n",
    "comment": lambda text: "# mine\n" + text,
    "no checksum": lambda text: text[: text.rindex("checksum")],
    "other checksum": lambda text: text[:-3] + ("aa\n" if text[-3:] != "aa\n" else "bb\n"),
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "latin-1": lambda text: text + "\udce9",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_manifest_is_damaged(root: Path, edit: Callable[[str], str]) -> None:
    """Whatever is changed in a manifest by hand or by accident is found, and the file is named."""
    path = root / MANIFEST
    path.write_bytes(edit(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(ReleaseDamaged, match=f"^{re.escape(str(path))}: ") as damaged:
        read_manifest(root)
    assert 1 == len(str(damaged.value).splitlines())


def test_a_sealed_manifest_with_an_unknown_key_is_refused(root: Path) -> None:
    """A checksum does not make a key known."""
    seal(root, body_of(root) + "more: 1\n")
    with pytest.raises(InputRefused, match=r"release\.yaml: more: unknown key"):
        read_manifest(root)


@given(place=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_manifest_is_found(kept_root: Path, place: int, bit: int) -> None:
    """One changed bit anywhere before the last line break refuses the release."""
    path = kept_root / MANIFEST
    content = path.read_bytes()
    changed = bytearray(content)
    changed[place % (len(content) - 1)] ^= 1 << bit
    path.write_bytes(changed)
    try:
        with pytest.raises(RangefinderError, match=r"release\.yaml: "):
            read_manifest(kept_root)
    finally:
        path.write_bytes(content)


@given(st.text())
@example("format: ²\n")
@example("format: " + "9" * 5_000)
@example("checksum: ")
def test_any_text_for_a_manifest_is_refused(kept_root: Path, text: str) -> None:
    """No text in place of a manifest gets past, and none raises anything but our errors."""
    path = kept_root / MANIFEST
    content = path.read_bytes()
    path.write_text(text, encoding="utf-8")
    try:
        with pytest.raises((InputRefused, ReleaseDamaged)):
            read_manifest(kept_root)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_damage(root: Path, name: str) -> None:
    """A file that the manifest names and that is gone is named."""
    (root / name).unlink()
    with pytest.raises(ReleaseDamaged, match=f"{name}: missing"):
        read_manifest(root)


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"x"])
def test_another_size_is_damage(root: Path, content: bytes) -> None:
    """A file that was cut or has grown is named before anything is read of it."""
    (root / FILES[0]).write_bytes(content)
    with pytest.raises(ReleaseDamaged, match=f"{FILES[0]}: {len(content)} bytes, not 300"):
        read_manifest(root)


@given(place=st.integers(0, len(CONTENT) - 1), bit=st.integers(0, 7), name=st.sampled_from(FILES))
def test_a_flipped_bit_of_a_file_is_found(kept_root: Path, place: int, bit: int, name: str) -> None:
    """One changed bit anywhere in a file is damage, and the file is named; the others are sound."""
    manifest = read_manifest(kept_root)
    changed = bytearray(CONTENT)
    changed[place] ^= 1 << bit
    (kept_root / name).write_bytes(changed)
    try:
        verify(kept_root, manifest, (other for other in FILES if other != name))
        with pytest.raises(ReleaseDamaged, match=f"{name}: checksum mismatch"):
            verify(kept_root, manifest, FILES)
    finally:
        (kept_root / name).write_bytes(CONTENT)


def test_files_that_vanish_later_are_damage(root: Path) -> None:
    """A file that is gone by the time it is verified is damage, not a traceback."""
    manifest = replace(read_manifest(root), name="r-2")
    (root / FILES[1]).unlink()
    with pytest.raises(ReleaseDamaged, match=f"{FILES[1]}: no such file"):
        verify(root, manifest, FILES)
