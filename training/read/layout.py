"""What a text file of interactions looks like: found on its first lines, or told by options. Pure."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rangefinder.errors import InputRefused
from rangefinder.keys import IdKind

SAMPLE_LINES = 1_000


class FileFormat(StrEnum):
    """What `--format` takes."""

    AUTO = "auto"
    CSV = "csv"  # One interaction a line, whatever the separator.
    ADJACENCY = "adjacency"  # A user and all its items a line.
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What a person says about a file; what is not said is found by looking."""

    format: FileFormat = FileFormat.AUTO
    separator: str | None = None
    encoding: str | None = None
    id_kind: IdKind | None = None


BY_LOOKING = ReadOptions()


class Role(StrEnum):
    """What a column is read as."""

    USER = "user"
    ITEM = "item"
    RATING = "rating"
    TIME = "time"


# Names of columns as they are met, in small letters and without what joins words.
_NAMES: Mapping[Role, tuple[str, ...]] = {
    Role.USER: (
        *("user", "userid", "uid", "username", "customer", "customerid", "visitorid", "member"),
        *("memberid", "account", "accountid", "reviewerid", "profile", "profileid"),
    ),
    Role.ITEM: (
        *("item", "itemid", "iid", "movie", "movieid", "product", "productid", "asin", "parentasin"),
        *("sku", "isbn", "book", "bookid", "artist", "artistid", "track", "trackid", "song", "songid"),
        *(
            "article",
            "articleid",
            "business",
            "businessid",
            "location",
            "locationid",
            "venueid",
            "gameid",
        ),
    ),
    Role.RATING: (
        *("rating", "ratings", "score", "stars", "value", "weight", "count", "plays", "overall"),
        *("preference", "bookrating"),
    ),
    Role.TIME: (
        *("time", "timestamp", "ts", "date", "datetime", "unixtime", "unixreviewtime", "createdat"),
        *("eventtime", "checkintime", "reviewtime"),
    ),
}

# A third column that begins within is a time, of 1973 or later: no rating is so high.
_SECONDS = (1e8, 1e11)


class TimeKind(StrEnum):
    """How times are written; one way in a file."""

    SECONDS = "seconds since 1970"
    MOMENT = "2026-01-31T12:00:00"
    MOMENT_IN_ZONE = "2026-01-31T12:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the lines of one file are read."""

    format: FileFormat
    encoding: str
    separator: str  # One character, or "::".
    skipped_lines: int = 0  # Before the first interaction: blank ones and the header.
    columns: tuple[str, ...] = ()  # Names of all columns; empty for adjacency lines.
    places: Mapping[Role, int]  # Of the columns that are read.
    time_kind: TimeKind = TimeKind.SECONDS

    @property
    def expectation(self) -> str:
        """What every line holds, in words."""
        if self.format is FileFormat.ADJACENCY:
            return f"'user item item ...' separated by {named(self.separator)}"
        names = ", ".join(self.columns)
        return f"{len(self.columns)} fields separated by {named(self.separator)}: {names}"

    @property
    def in_words(self) -> str:
        if self.format is FileFormat.ADJACENCY:
            return f"adjacency lines, {self.expectation}, {self.encoding}"
        read = ", ".join(f"{role} = column {place + 1}" for role, place in self.places.items())
        return f"lines separated by {named(self.separator)}, {self.encoding}: {read}"


def named(separator: str) -> str:
    """A separator as people call it."""
    return {"\t": "a tab", " ": "a space"}.get(separator, f"{separator!r}")


def fields_of(line: str, separator: str) -> list[str]:
    """The fields of a line, stripped; quotes hold only where commas or semicolons separate."""
    if separator == " ":
        return line.split()
    if separator in ",;" and '"' in line:
        return [field.strip() for field in _quoted(line, separator)]
    return [field.strip() for field in line.split(separator)]


def layout_of(
    lines: Sequence[str],
    encoding: str,
    source: str,
    asked: FileFormat = FileFormat.AUTO,
    separator: str | None = None,
) -> Layout:
    """Recognise the first lines of a file. Raises InputRefused where they are none of ours."""
    blank = next((n for n, line in enumerate(lines) if line.strip()), None)
    if blank is None:
        raise InputRefused(f"{source}: holds nothing but blank lines")
    filled = [line for line in lines[blank:] if line.strip()]
    found = separator or separator_of(filled[0])
    rows = [fields_of(line, found) for line in filled]
    if len(rows[0]) < 2:
        raise InputRefused(
            f"{source}: line {blank + 1}: one field: expected a user and an item"
            " separated by a comma, tab, semicolon, '::' or space (or give --separator)"
        )
    if asked is FileFormat.ADJACENCY or (asked is FileFormat.AUTO and _are_adjacency(rows, found)):
        return Layout(
            format=FileFormat.ADJACENCY,
            encoding=encoding,
            separator=found,
            skipped_lines=0,
            places={Role.USER: 0, Role.ITEM: 1},
        )
    return _delimited(rows, blank, encoding, found, source)


def places_of_names(names: Sequence[str], source: str) -> dict[Role, int]:
    """Which column plays which role, by its name. Raises InputRefused where one of two is missing."""
    places = named_places(names)
    for role in (Role.USER, Role.ITEM):
        if role not in places:
            raise InputRefused(
                f"{source}: no column of {role}s among {', '.join(names)[:200]}:"
                f" name it {role}, or {role}_id"
            )
    return places


def named_places(names: Sequence[str]) -> dict[Role, int]:
    """The first column, in the order of our lists, whose name is known for a role."""
    plain = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in names]
    return {
        role: plain.index(known[0])
        for role, all_known in _NAMES.items()
        if (known := [name for name in all_known if name in plain])
    }


def separator_of(line: str) -> str:
    """What separates the fields of a line."""
    if "::" in line:
        return "::"
    counts = {mark: line.count(mark) for mark in ("\t", ",", ";", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] else " "


def is_number(text: str) -> bool:
    """Also one that is not finite: it stands where numbers do."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def time_kind_of(text: str) -> TimeKind | None:
    """How a time is written; None for what is none."""
    if is_number(text):
        return TimeKind.SECONDS
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return TimeKind.MOMENT if moment.tzinfo is None else TimeKind.MOMENT_IN_ZONE


def _quoted(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


def _are_adjacency(rows: list[list[str]], separator: str) -> bool:
    """Lines of numbers of fields that no table has; of a table's, a user comes again and again."""
    if separator != " " or named_places(rows[0]):
        return False
    widths = {len(row) for row in rows}
    if widths not in ({3}, {4}):
        return True
    return len({row[0] for row in rows}) == len(rows) > 1


def _delimited(
    rows: list[list[str]], blank_lines: int, encoding: str, separator: str, source: str
) -> Layout:
    has_header = _is_header(rows)
    columns = tuple(rows[0])
    if has_header:
        places = places_of_names(columns, f"{source}: line {blank_lines + 1}, a header")
    else:
        places = _places_without_names(rows[0], source, blank_lines + 1)
        names = {place: role.value for role, place in places.items()}
        columns = tuple(names[place] for place in range(len(columns)))
    body = rows[1:] if has_header else rows
    if not body:
        raise InputRefused(f"{source}: a header and no interactions")
    return Layout(
        format=FileFormat.CSV,
        encoding=encoding,
        separator=separator,
        skipped_lines=blank_lines + has_header,
        columns=columns,
        places=places,
        time_kind=_time_kind(body[0], places.get(Role.TIME)),
    )


def _time_kind(fields: list[str], place: int | None) -> TimeKind:
    if place is None or place >= len(fields):
        return TimeKind.SECONDS
    return time_kind_of(fields[place]) or TimeKind.SECONDS


def _is_header(rows: list[list[str]]) -> bool:
    """Known names, or a line without a number above lines that have one in the same column."""
    if len(named_places(rows[0])) >= 2:
        return True
    return len(rows) > 1 and any(
        time_kind_of(first) is None and all(is_number(f) for f in below)
        for first, *below in zip(*rows, strict=False)
    )


def _places_without_names(fields: list[str], source: str, line: int) -> dict[Role, int]:
    places = {Role.USER: 0, Role.ITEM: 1}
    if len(fields) == 3:
        kind = time_kind_of(fields[2])
        is_seconds = kind is TimeKind.SECONDS and _SECONDS[0] <= float(fields[2]) <= _SECONDS[1]
        is_time = is_seconds or kind in (TimeKind.MOMENT, TimeKind.MOMENT_IN_ZONE)
        places[Role.TIME if is_time else Role.RATING] = 2
    elif len(fields) == 4:
        places |= {Role.RATING: 2, Role.TIME: 3}
    elif len(fields) > 4:
        raise InputRefused(
            f"{source}: line {line}: {len(fields)} fields and no header: expected user, item, rating,"
            " time, or a header that names these (or --format adjacency)"
        )
    return places
