"""What items are built from: their ids, then their rows and attributes in blocks, in one order."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rangefinder.errors import InputRefused
from rangefinder.keys import TEXT_BYTES_MAX, IntegerIds
from rangefinder.texts import TextColumn
from shard_server.attributes import AttributeBatch, AttributeSchema
from shard_server.scoring import Rows

BLOCK_ROWS = 16_384

Ids = IntegerIds | TextColumn


@dataclass(frozen=True, slots=True)
class ItemBlock:
    """Items that follow one another in the source."""

    rows: Rows
    attributes: AttributeBatch | None


class ItemSource(Protocol):
    """Opened and checked as far as its headers go; the rest is checked as it is read."""

    @property
    def name(self) -> str:
        """The file of the rows, for messages."""

    @property
    def row_count(self) -> int: ...

    @property
    def dimension(self) -> int: ...

    @property
    def attribute_schema(self) -> AttributeSchema | None:
        """Typed as attributes are kept; None where there are none."""

    def ids(self) -> Ids:
        """All ids. Raises InputRefused."""

    def blocks(self) -> Iterator[ItemBlock]:
        """All items, at most BLOCK_ROWS at a time. Raises InputRefused."""


def as_integer_ids(values: npt.NDArray[Any], source: str) -> IntegerIds:
    """A column of integers as ids. Raises InputRefused for another type or what int64 cannot hold."""
    if values.dtype.kind not in "iu":
        raise InputRefused(f"{source}: ids are {values.dtype}: give integers or text")
    if values.dtype.kind == "u" and (values > np.iinfo(np.int64).max).any():
        row = int(np.argmax(values > np.iinfo(np.int64).max))
        raise InputRefused(f"{source}: row {row}: {values[row]} does not fit into an int64")
    return values.astype(np.int64)


def require_text_ids(texts: TextColumn, source: str) -> TextColumn:
    """Refuse ids that are empty, too long or not UTF-8."""
    sizes = np.diff(texts.ends, prepend=0)
    for bad, why in ((sizes == 0, "is empty"), (sizes > TEXT_BYTES_MAX, "is over 256 bytes")):
        if bad.any():
            raise InputRefused(f"{source}: row {int(np.argmax(bad))}: the id {why}")
    for row, text in enumerate(texts):
        try:
            text.decode()
        except UnicodeDecodeError:
            raise InputRefused(f"{source}: row {row}: the id is not UTF-8") from None
    return texts


def require_file(path: Path) -> None:
    """Refuse a path that is no readable, non-empty file."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputRefused(f"{path}: not a file")
        with open(path, "rb"):
            pass  # It may be read.
    except OSError as error:
        raise InputRefused(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if size == 0:
        raise InputRefused(f"{path}: the file is empty")
