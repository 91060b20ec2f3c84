"""Titles of items (`id::title::...`, `id|title|...`, CSV, TSV), and a check that their ids match."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rangefinder.errors import InputRefused
from rangefinder.keys import IntegerIds
from rangefinder.texts import TextColumn
from training.read.layout import fields_of, is_number, separator_of
from training.read.raw_columns import is_int64
from training.read.text_file import encoding_of, first_bytes, first_lines, is_decoded, lines_of

ENOUGH = 0.99  # Of the items: with fewer titles the file may be that of other ids.

_ID_NAMES = ("id", "item", "itemid", "movieid", "productid", "asin", "parentasin", "bookid", "artistid")
_TITLE_NAMES = ("title", "name", "movietitle", "productname", "booktitle", "artistname", "label")
_TITLE_BYTES_MAX = 4_096  # Of UTF-8; what is longer is no title.


@dataclass(frozen=True, slots=True)
class Titles:
    """The title of each item, "" where there is none; what is doubtful about them, in words."""

    titles: list[str]
    warnings: tuple[str, ...]


def read_titles(path: Path, items: IntegerIds | TextColumn, offset: int) -> Titles:
    """Titles whose id is that of an item plus `offset`. Raises InputRefused where none matches."""
    by_id = dict(_rows(path))
    matched = _matched(by_id, items, offset)
    count = sum(map(bool, matched))
    if count == 0:
        hint = _hint(by_id, items, offset, 0)
        raise InputRefused(f"{path}: no item has a title: these are titles of other ids{hint}")
    warnings = []
    hint = _hint(by_id, items, offset, count)
    if count < ENOUGH * len(items):
        warnings.append(
            f"{path}: only {count:,} of {len(items):,} items ({count / len(items):.1%})"
            f" have a title{hint}"
        )
    elif hint:
        warnings.append(f"{path}: {count:,} of {len(items):,} items have a title{hint}")
    return Titles(matched, tuple(warnings))


def _matched(by_id: Mapping[str, str], items: IntegerIds | TextColumn, offset: int) -> list[str]:
    if isinstance(items, TextColumn):
        if offset:
            raise InputRefused("--titles-id-offset goes with integer ids: these are text")
        return [by_id.get(text.decode(), "") for text in items]
    by_integer = {int(text): title for text, title in by_id.items() if is_int64(text.encode())}
    return [by_integer.get(item + offset, "") for item in items.tolist()]


def _hint(by_id: Mapping[str, str], items: IntegerIds | TextColumn, offset: int, count: int) -> str:
    """An offset beside the one given that fits better, in words."""
    if isinstance(items, TextColumn):
        return ""
    counts = {near: sum(map(bool, _matched(by_id, items, near))) for near in (offset - 1, offset + 1)}
    best = max(counts, key=lambda near: counts[near])
    if counts[best] <= count:
        return ""
    return f"; with --titles-id-offset {best} it would be {counts[best]:,}: is that the right one?"


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """Pairs of an id and a title. Raises InputRefused, naming a malformed line."""
    encoding = _encoding(path)
    sample = [line for line in first_lines(path, encoding) if line.strip()]
    if not sample:
        raise InputRefused(f"{path}: holds nothing but blank lines")
    separator = separator_of(sample[0])
    if separator == " ":
        raise InputRefused(f"{path}: line 1: {sample[0][:60]!r}: expected an id and a title")
    id_place, title_place, has_header = _places(fields_of(sample[0], separator))
    for number, fields in _numbered(lines_of(path, encoding), separator):
        if has_header:
            has_header = False
            continue
        if len(fields) <= max(id_place, title_place):
            raise InputRefused(
                f"{path}: line {number}: {len(fields)} field: expected an id and a title"
                f" separated by {separator!r}"
            )
        yield fields[id_place], _tidy(fields[title_place])


def _numbered(lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, fields_of(line, separator)


def _encoding(path: Path) -> str:
    """UTF-8 where all of it is; else Latin-1, as MovieLens is."""
    encoding = encoding_of(first_bytes(path), path, None)
    if encoding == "utf-8" and not all(map(is_decoded, lines_of(path, encoding))):
        return "latin-1"
    return encoding


def _places(first: list[str]) -> tuple[int, int, bool]:
    """Of id and title, and whether the first line is a header."""
    names = ["".join(filter(str.isalnum, name.lower())) for name in first]
    ids = [names.index(name) for name in _ID_NAMES if name in names]
    titles = [names.index(name) for name in _TITLE_NAMES if name in names]
    if ids and titles and not is_number(first[ids[0]]):
        return ids[0], titles[0], True
    return 0, 1, False


def _tidy(title: str) -> str:
    """Without what no terminal should be sent, and cut where it is no title any more."""
    plain = "".join(letter if letter.isprintable() else " " for letter in title)
    return plain.encode()[:_TITLE_BYTES_MAX].decode(errors="ignore").strip()
