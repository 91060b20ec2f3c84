"""A file of interactions, whatever its format: looked at, read by its reader, made into columns."""

from collections.abc import Callable
from pathlib import Path

from rangefinder.errors import InputRefused
from training.read.adjacency import read_adjacency
from training.read.delimited import read_delimited
from training.read.layout import BY_LOOKING, FileFormat, Layout, ReadOptions, layout_of
from training.read.malformed import refusal_of
from training.read.parquet import MAGIC, read_parquet, row_count_of
from training.read.raw_columns import MalformedValue, RawColumns, Read, interactions_of
from training.read.text_file import encoding_of, first_bytes, first_lines, lines_of

Advance = Callable[[int], None]  # Told how many bytes or rows were read, all in all.

_SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";", "pipe": "|"}


def read_interactions(
    path: Path,
    options: ReadOptions = BY_LOOKING,
    told: Callable[[str], None] = lambda text: None,
    advance: Advance = lambda done: None,
) -> Read:
    """Read a file. `told` hears what it was taken for. Raises InputRefused, naming the line."""
    raw = _read(path, options, told, advance)
    return interactions_of(raw, options.id_kind, str(path))


def size_of(path: Path) -> int:
    """What `advance` counts up to, near enough. Raises InputRefused for what is no file."""
    if first_bytes(path).startswith(MAGIC):
        return row_count_of(path)
    return path.stat().st_size


def _read(
    path: Path, options: ReadOptions, told: Callable[[str], None], advance: Advance
) -> RawColumns:
    head = first_bytes(path)
    if options.format is FileFormat.PARQUET or (
        options.format is FileFormat.AUTO and head.startswith(MAGIC)
    ):
        told("a Parquet file")
        return _checked_parquet(path, options, advance)
    encoding = encoding_of(head, path, options.encoding)
    separator = _separator(options.separator)
    layout = layout_of(first_lines(path, encoding), encoding, str(path), options.format, separator)
    told(layout.in_words)
    read = read_adjacency if layout.format is FileFormat.ADJACENCY else read_delimited
    try:
        raw = read(path, layout, advance)
        raw.require_ids(options.id_kind)
    except MalformedValue as error:
        raise _refusal(path, layout, options, str(error)) from None
    if not raw.users:
        raise InputRefused(f"{path}: no interactions: expected {layout.expectation}")
    return raw


def _refusal(path: Path, layout: Layout, options: ReadOptions, otherwise: str) -> InputRefused:
    lines = lines_of(path, layout.encoding)
    return refusal_of(lines, layout, options.id_kind, str(path), otherwise)


def _checked_parquet(path: Path, options: ReadOptions, advance: Advance) -> RawColumns:
    raw = read_parquet(path, advance)
    try:
        raw.require_ids(options.id_kind)
    except MalformedValue:
        raise InputRefused(
            f"{path}: an id is empty, over 256 bytes, or no int64 where --id-kind asks for integers"
        ) from None
    return raw


def _separator(asked: str | None) -> str | None:
    """A separator as typed, or by its name. Raises InputRefused."""
    chosen = _SEPARATORS.get(asked, asked) if asked else asked
    if chosen is not None and chosen != "::" and (len(chosen) != 1 or not chosen.isascii()):
        raise InputRefused(f"--separator {asked!r}: give one character, '::', tab or space")
    return chosen
