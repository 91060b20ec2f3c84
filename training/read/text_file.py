"""A text file before it is read: that it is one, its encoding, its first lines."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from rangefinder.errors import InputRefused
from training.read.layout import SAMPLE_LINES

_LOOKED_AT_BYTES = 1 << 16

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# First bytes of files that are no text, and what they are.
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}


def first_bytes(path: Path) -> bytes:
    """The beginning of a file. Raises InputRefused for what is missing, no file, or empty."""
    try:
        if path.exists() and not path.is_file():
            raise InputRefused(f"{path}: not a file")
        with open(path, "rb") as file:
            head = file.read(_LOOKED_AT_BYTES)
    except OSError as error:
        raise InputRefused(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if not head:
        raise InputRefused(f"{path}: the file is empty")
    return head


def encoding_of(head: bytes, path: Path, asked: str | None) -> str:
    """The encoding asked for, or found: UTF-8 unless the file begins with another's mark."""
    for mark, name in _PACKED.items():
        if head.startswith(mark):
            raise InputRefused(f"{path}: {name}: unpack it first")
    if asked is not None:
        return _known(asked)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" in head:
        raise InputRefused(f"{path}: a binary file: give CSV, TSV, adjacency lines or Parquet")
    return "utf-8"


def first_lines(path: Path, encoding: str) -> list[str]:
    """At most SAMPLE_LINES lines; bytes that the encoding does not know become surrogates."""
    lines = []
    for number, line in enumerate(lines_of(path, encoding)):
        if number == SAMPLE_LINES:
            break
        lines.append(line)
    return lines


def lines_of(path: Path, encoding: str) -> Iterator[str]:
    """All lines without their ends, for a look or for a message: not the fast way."""
    try:
        with open(path, encoding=encoding, errors="surrogateescape", newline=None) as file:
            for line in file:
                yield line.rstrip("\n")
    except (UnicodeError, OSError) as error:  # Such as UTF-16 cut in half.
        raise InputRefused(f"{path}: not {encoding} text: {error}") from None


def is_decoded(text: str) -> bool:
    """Whether no byte of a line was foreign to its encoding."""
    return text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text)


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise InputRefused(
            f"--encoding {encoding!r} is unknown: give a name such as utf-8, latin-1 or utf-16"
        ) from None
