"""A user and all its items a line, read in blocks of whole lines."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.read.layout import Layout
from training.read.raw_columns import MalformedValue, RawColumns

_BLOCK_BYTES = 4 << 20

Advance = Callable[[int], None]  # Told how many bytes were read.


def read_adjacency(path: Path, layout: Layout, advance: Advance) -> RawColumns:
    """All lines; a user without items adds nothing. Raises MalformedValue for what is no text."""
    raw, done = RawColumns(), 0
    separator = None if layout.separator == " " else layout.separator
    try:
        with open(path, encoding=layout.encoding) as file:
            while lines := file.readlines(_BLOCK_BYTES):
                _append(raw, lines, separator)
                done += sum(map(len, lines))  # In letters, near enough to bytes.
                advance(done)
    except (UnicodeError, OSError) as error:
        raise MalformedValue(str(error)) from None
    return raw


def _append(raw: RawColumns, lines: list[str], separator: str | None) -> None:
    rows = [
        [field.strip() for field in line.split(separator)] if separator else line.split()
        for line in lines
    ]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        return
    users = raw.user_texts.codes_of([row[0].encode() for row in rows])
    raw.append(
        np.repeat(users, [len(row) - 1 for row in rows]),
        raw.item_texts.codes_of([item.encode() for row in rows for item in row[1:]]),
    )
