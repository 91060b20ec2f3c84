"""A column of texts: one blob of UTF-8 and the end of each text in it, never Python strings.

texts.npy        uint8, the texts one after another
text_ends.npy    int64, where each text ends in the blob
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rangefinder.storage import map_array, save_array

BLOB, ENDS = "texts.npy", "text_ends.npy"


@dataclass(frozen=True, slots=True)
class TextColumn:
    """Texts by row number. Both arrays may be mapped files."""

    blob: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> "TextColumn":
        blob, ends = bytearray(), array("q")
        for text in texts:
            blob += text
            ends.append(len(blob))
        return cls(np.frombuffer(blob, np.uint8), np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> bytes:
        start = int(self.ends[row - 1]) if row else 0
        return self.blob[start : int(self.ends[row])].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: npt.NDArray[np.int64]) -> "TextColumn":
        """Those of some rows, in their order."""
        return TextColumn.of(self[row] for row in rows.tolist())


def save_texts(folder: Path, texts: TextColumn) -> None:
    """Write a column as the two files above."""
    save_array(folder / BLOB, texts.blob)
    save_array(folder / ENDS, texts.ends)


def map_texts(folder: Path, byte_count: int, count: int) -> TextColumn:
    """The column that a folder holds, mapped. Raises ReleaseDamaged where it is another."""
    blob = map_array(folder / BLOB, np.uint8, (byte_count,))
    return TextColumn(blob, map_array(folder / ENDS, np.int64, (count,)))
