"""Which line is malformed, and what was expected of it: said when the fast reader has stumbled."""

import math
from collections.abc import Iterable
from datetime import datetime

from rangefinder.errors import InputRefused
from rangefinder.keys import TEXT_BYTES_MAX, IdKind
from training.read.layout import FileFormat, Layout, Role, TimeKind, fields_of, time_kind_of
from training.read.raw_columns import RATING_MAX, TIME_MAX_S, is_int64
from training.read.text_file import is_decoded

_SHOWN = 60  # Letters of a line or value in a message.


def refusal_of(
    lines: Iterable[str], layout: Layout, id_kind: IdKind | None, source: str, otherwise: str
) -> InputRefused:
    """Names the first line that cannot be read; `otherwise` is said where every line looks well."""
    for number, line in enumerate(lines, start=1):
        if number > layout.skipped_lines and line.strip() and (why := _wrong(line, layout, id_kind)):
            return InputRefused(f"{source}: line {number}: {why}")
    return InputRefused(f"{source}: {' '.join(otherwise.split())}")


def _wrong(line: str, layout: Layout, id_kind: IdKind | None) -> str | None:
    if not is_decoded(line):
        return f"not {layout.encoding} text: give its --encoding, such as latin-1"
    if "\0" in line:
        return "a NUL byte: the file is binary or damaged"
    fields = fields_of(line, layout.separator)
    if layout.format is FileFormat.ADJACENCY:
        wrong = [_wrong_user(fields[0]), *(_wrong_item(item, id_kind) for item in fields[1:])]
        return next((f"{why}: expected {layout.expectation}" for why in wrong if why), None)
    if len(fields) != len(layout.columns):
        count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
        return f"{count} in {line[:_SHOWN]!r}: expected {layout.expectation}"
    return next(
        (
            why
            for role, place in layout.places.items()
            if (why := _wrong_value(role, fields[place], layout, id_kind))
        ),
        None,
    )


def _wrong_value(role: Role, text: str, layout: Layout, id_kind: IdKind | None) -> str | None:
    match role:
        case Role.USER:
            return _wrong_user(text)
        case Role.ITEM:
            return _wrong_item(text, id_kind)
        case Role.RATING:
            return _wrong_number(text, "rating", -RATING_MAX, RATING_MAX)
    return _wrong_time(text, layout.time_kind)


def _wrong_user(text: str) -> str | None:
    return _wrong_id(text, "user")


def _wrong_item(text: str, id_kind: IdKind | None) -> str | None:
    if id_kind is not None and id_kind.is_integer and not is_int64(text.encode()):
        return f"the item {text[:_SHOWN]!r} is no int64: give integers, or --id-kind text"
    return _wrong_id(text, "item")


def _wrong_id(text: str, what: str) -> str | None:
    if not text:
        return f"the {what} is empty"
    if len(text.encode()) > TEXT_BYTES_MAX:
        return f"the {what} is over {TEXT_BYTES_MAX} bytes"
    return None


def _wrong_number(text: str, what: str, low: float, high: float) -> str | None:
    try:
        value = float(text)
    except ValueError:
        return f"the {what} is {text[:_SHOWN]!r}: expected a number"
    if not math.isfinite(value) or not low <= value <= high:
        return f"the {what} is {text[:_SHOWN]}: expected {low:g} to {high:g}"
    return None


def _wrong_time(text: str, kind: TimeKind) -> str | None:
    why = f"the time is {text[:_SHOWN]!r}: expected it as {kind}, from 1970 to the year 9999"
    if time_kind_of(text) is not kind:
        return why
    if kind is TimeKind.SECONDS:
        return None if 0 <= float(text) < TIME_MAX_S else why
    return None if datetime.fromisoformat(text).year >= 1970 else why
