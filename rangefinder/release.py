"""A release on disk: what `build` writes and nodes serve.

    release.yaml            this manifest; its last line is the checksum of all lines before it
    shards/<shard>/<segment>/...    see shard_server/segment_files.py
    probes/queries.npy      float32, shape (probes, dimension): held-out queries
    items/, users/          what training knows of both, see item_tables.py and user_tables.py
    ranker/                 the model that ranks candidates, see ranker_service/card.py

The manifest names every other file with its size and checksum and is written last, into a folder that
takes its final name last: a half-written release has no manifest.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rangefinder.documents import (
    STRICT,
    Count,
    Key,
    Name,
    Positive,
    Share,
    from_yaml,
    to_yaml,
)
from rangefinder.errors import InputRefused, ReleaseDamaged
from rangefinder.hashing import FileChecksum
from rangefinder.keys import IdKind
from rangefinder.metric import Metric
from rangefinder.storage import checksum, read_text, write_text

FORMAT = 2  # 1 had no tables and no ranker.
MANIFEST = "release.yaml"
PROBES = "probes/queries.npy"
_CHECKSUM_LINE = "checksum: "


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexParameters:
    """How indexes are built. `links` and `build_width` are M and efConstruction of HNSW."""

    __pydantic_config__: ClassVar = STRICT

    engine: str = "hnswlib"
    links: Positive = 16
    build_width: Positive = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseShard:
    """One range of the release and the names of its segments."""

    __pydantic_config__: ClassVar = STRICT

    name: Name
    key_start: Key
    key_end: Key
    item_count: Count
    segments: tuple[Name, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFile:
    """Size in bytes and XXH3-128 of a file."""

    __pydantic_config__: ClassVar = STRICT

    size: Count
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsDescription:
    """Shapes of the item tables."""

    __pydantic_config__: ClassVar = STRICT

    item_count: Count
    text_bytes: Count | None  # None in a cluster of integer ids.
    feature_names: tuple[Name, ...]
    neighbour_count: Count
    popular_count: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersDescription:
    """Shapes of the user tables."""

    __pydantic_config__: ClassVar = STRICT

    user_count: Count
    text_bytes: Count
    history_length: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerDescription:
    """The model that ranks, as its card names it."""

    __pydantic_config__: ClassVar = STRICT

    model: Name
    version: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseExtras:
    """What a release holds beside its shards; each part may be absent."""

    items: ItemsDescription | None = None
    users: UsersDescription | None = None
    ranker: RankerDescription | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseManifest:
    """What a release is and which files it consists of."""

    __pydantic_config__: ClassVar = STRICT

    format: int
    name: Name
    dimension: Positive
    metric: Metric
    id_kind: IdKind
    item_count: Count
    created_at_s: float
    recall_target: Share
    index: IndexParameters
    shards: tuple[ReleaseShard, ...]
    items: ItemsDescription | None = None
    users: UsersDescription | None = None
    ranker: RankerDescription | None = None
    files: dict[str, ReleaseFile]

    def files_below(self, folder: str) -> Iterable[str]:
        """Names of the files in a folder of the release."""
        return (name for name in self.files if name.startswith(f"{folder}/"))


def write_manifest(root: Path, manifest: ReleaseManifest) -> None:
    """Write the manifest; the last act of a build."""
    text = to_yaml(manifest)
    write_text(root / MANIFEST, f"{text}{_CHECKSUM_LINE}{_digest(text)}\n")


def read_manifest(root: Path) -> ReleaseManifest:
    """Read and check the manifest, and that every file it names is there with its size.

    Raises InputRefused for what is no release or a newer one, ReleaseDamaged for a damaged one.
    """
    path = root / MANIFEST
    if not _is_file(path):
        raise InputRefused(
            f"{path}: no such file: {root} is not a release, or its build did not finish"
        )
    manifest = _parse(path)
    for name, expected in manifest.files.items():
        _require_size(root / name, expected.size)
    return manifest


def verify(root: Path, manifest: ReleaseManifest, names: Iterable[str]) -> None:
    """Compare files with their checksums. Raises ReleaseDamaged, naming the first that differs."""
    for name in names:
        if checksum(root / name) != manifest.files[name].checksum:
            raise ReleaseDamaged(
                f"{root / name}: checksum mismatch: the file is damaged, restore or rebuild it"
            )


def list_files(root: Path) -> dict[str, ReleaseFile]:
    """Size and checksum of every file below a folder, by its name relative to it."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): ReleaseFile(
            size=path.stat().st_size, checksum=checksum(path)
        )
        for path in paths
    }


def _parse(path: Path) -> ReleaseManifest:
    try:
        text = read_text(path)
    except InputRefused as error:
        raise ReleaseDamaged(str(error)) from None
    body, separator, digest = text.rpartition(_CHECKSUM_LINE)
    _require_format(body or text, path)
    if not separator or digest != f"{_digest(body)}\n":
        raise ReleaseDamaged(f"{path}: checksum mismatch: the file is damaged or was edited")
    return from_yaml(body, ReleaseManifest, str(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # Such as a name that is too long.


def _require_format(text: str, path: Path) -> None:
    """A newer release is named as such before anything else of it is read."""
    first = text.split("\n", 1)[0].removeprefix("format: ")
    if re.fullmatch("[0-9]{1,9}", first) and int(first) > FORMAT:
        raise InputRefused(
            f"{path}: format {first} is newer than this Rangefinder reads ({FORMAT}): upgrade it"
        )


def _require_size(path: Path, expected: int) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise ReleaseDamaged(f"{path}: missing: restore or rebuild the release") from None
    if size != expected:
        raise ReleaseDamaged(f"{path}: {size} bytes, not {expected}: restore or rebuild it")


def _digest(text: str) -> str:
    state = FileChecksum()
    state.update(text.encode())
    return state.hexdigest()
