"""Items from NumPy files: `--embeddings X.npy`, and `--ids IDS.npy` or `--ids IDS.txt`."""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rangefinder.errors import InputRefused
from rangefinder.keys import IdKind
from rangefinder.texts import TextColumn
from shard_server.build.source import (
    BLOCK_ROWS,
    Ids,
    ItemBlock,
    as_integer_ids,
    require_file,
    require_text_ids,
)

_INTEGER = re.compile(rb"[+-]?[0-9]{1,20}")

# What float32 holds without changing its meaning.
_ROW_DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "uint16")


@dataclass(frozen=True, slots=True)
class NpySource:
    """Rows of a mapped matrix, and ids beside them; without a file of ids, row numbers are the ids."""

    name: str
    matrix: npt.NDArray[Any]
    id_file: Path | None
    id_kind: IdKind | None

    attribute_schema = None

    @classmethod
    def open(cls, embeddings: Path, id_file: Path | None, id_kind: IdKind | None) -> "NpySource":
        """Raises InputRefused."""
        return cls(str(embeddings), read_matrix(embeddings), id_file, id_kind)

    @property
    def row_count(self) -> int:
        return len(self.matrix)

    @property
    def dimension(self) -> int:
        return int(self.matrix.shape[1])

    def ids(self) -> Ids:
        if self.id_file is None:
            return np.arange(self.row_count, dtype=np.int64)
        ids = read_ids(self.id_file, self.id_kind)
        if len(ids) != self.row_count:
            raise InputRefused(
                f"{self.id_file}: {len(ids)} ids for the {self.row_count} rows of {self.name}"
            )
        return ids

    def blocks(self) -> Iterator[ItemBlock]:
        for start in range(0, self.row_count, BLOCK_ROWS):
            block = self.matrix[start : start + BLOCK_ROWS]
            with np.errstate(over="ignore"):  # What float32 cannot hold is refused as infinite.
                yield ItemBlock(np.ascontiguousarray(block, np.float32), None)


def read_matrix(path: Path) -> npt.NDArray[Any]:
    """A mapped matrix of numbers, one embedding a row. Raises InputRefused."""
    matrix = load_array(path)
    if matrix.dtype.name not in _ROW_DTYPES:
        raise InputRefused(f"{path}: embeddings are {matrix.dtype}: give float32")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputRefused(f"{path}: shape {matrix.shape}: give (items, dimension), neither 0")
    return matrix


def read_ids(path: Path, id_kind: IdKind | None) -> Ids:
    """Ids of a .npy file, or of a text file with one id a line. Raises InputRefused."""
    if path.suffix != ".npy":
        texts = _read_lines(path)
        is_integer = id_kind is not None and id_kind.is_integer
        return _parse_integers(texts, path) if is_integer else require_text_ids(texts, str(path))
    values = load_array(path)
    if values.ndim != 1:
        raise InputRefused(f"{path}: shape {values.shape}: ids are one column")
    if values.dtype.kind == "U":
        texts = TextColumn.of(str(value).encode(errors="surrogatepass") for value in values)
        return require_text_ids(texts, str(path))
    if values.dtype.kind == "S":
        return require_text_ids(TextColumn.of(bytes(value) for value in values), str(path))
    return as_integer_ids(values, str(path))


def load_array(path: Path) -> npt.NDArray[Any]:
    """A mapped .npy file, whatever it holds. Raises InputRefused."""
    require_file(path)
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy lets out whatever a spoilt header makes its parser raise.
        why = " ".join(str(error).split())
        raise InputRefused(f"{path}: not a whole .npy file: {why}") from None


def _read_lines(path: Path) -> TextColumn:
    require_file(path)
    content = np.frombuffer(
        path.read_bytes().removeprefix(BOM_UTF8).replace(b"\r\n", b"\n").removesuffix(b"\n"), np.uint8
    )
    breaks = np.append(np.flatnonzero(content == ord("\n")), len(content))
    ends = breaks - np.arange(len(breaks))
    return TextColumn(content[content != ord("\n")], ends)


def _parse_integers(texts: TextColumn, path: Path) -> npt.NDArray[np.int64]:
    ids = np.empty(len(texts), np.int64)
    for row, text in enumerate(texts):
        value = int(text) if _INTEGER.fullmatch(text) else None
        if value is None or not -(2**63) <= value < 2**63:
            raise InputRefused(
                f"{path}: row {row}: {text[:40].decode(errors='replace')!r} is no int64:"
                " give integers, or --id-kind text"
            )
        ids[row] = value
    return ids
