"""Interactions from a Parquet file: columns of users and items, of ratings and times if there are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rangefinder.errors import InputRefused
from training.read.layout import Role, places_of_names
from training.read.raw_columns import (
    RATING_MAX,
    TIME_MAX_S,
    MalformedValue,
    RawColumns,
    Vocabulary,
)

MAGIC = b"PAR1"

_BATCH_ROWS = 1 << 18
_MICROSECONDS = 1_000_000

Advance = Callable[[int], None]  # Told how many rows were read, all in all.


def row_count_of(path: Path) -> int:
    """Raises InputRefused."""
    with _whole(path):
        return int(pq.ParquetFile(path, pre_buffer=False).metadata.num_rows)


def read_parquet(path: Path, advance: Advance) -> RawColumns:
    """All rows. Raises InputRefused."""
    with _whole(path):
        file = pq.ParquetFile(path, pre_buffer=False)
        names = file.schema_arrow.names
        places = places_of_names(names, str(path))
        if file.metadata.num_rows == 0:
            raise InputRefused(f"{path}: no rows")
        item = file.schema_arrow.field(names[places[Role.ITEM]]).type
        raw, first_row = RawColumns(is_text=_is_text(item)), 0
        wanted = [names[place] for place in places.values()]
        for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
            columns = {role: batch.column(names[place]) for role, place in places.items()}
            _append(raw, columns, str(path), first_row)
            first_row += len(batch)
            advance(first_row)
        return raw


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Refuse a file that turns out to be damaged, whatever of it was being read."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise InputRefused(f"{path}: not a whole Parquet file: {why}") from None


def _append(raw: RawColumns, columns: dict[Role, pa.Array], source: str, first_row: int) -> None:
    for role, column in columns.items():
        if column.null_count:
            row = first_row + column.is_null().to_pylist().index(True)
            raise InputRefused(f"{source}: row {row}: the {role} is missing")
    users = _codes(columns[Role.USER], raw.user_texts, f"{source}: users")
    items = _codes(columns[Role.ITEM], raw.item_texts, f"{source}: items")
    ratings = times = None
    if Role.RATING in columns:
        ratings = _numbers(columns[Role.RATING], f"{source}: ratings")
        _require(ratings, -RATING_MAX, RATING_MAX, "rating", source, first_row)
    if Role.TIME in columns:
        times = _seconds(columns[Role.TIME], f"{source}: times")
        _require(times, 0, TIME_MAX_S, "time", source, first_row)
    try:
        raw.append(users, items, ratings, times)
    except MalformedValue:
        raise AssertionError("checked above") from None


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _codes(column: pa.Array, vocabulary: Vocabulary, what: str) -> npt.NDArray[np.int32]:
    if not _is_text(column.type) and not pa.types.is_integer(column.type):
        raise InputRefused(f"{what} are {column.type}: give integers or text")
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    texts = [str(value).encode() for value in column.dictionary.to_pylist()]
    codes: npt.NDArray[np.int32] = vocabulary.codes_of(texts)[column.indices.to_numpy()]
    return codes


def _numbers(column: pa.Array, what: str) -> npt.NDArray[np.float64]:
    kind = column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not is_number and not pa.types.is_boolean(kind):
        raise InputRefused(f"{what} are {kind}: give numbers")
    values: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return values


def _seconds(column: pa.Array, what: str) -> npt.NDArray[np.float64]:
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        microseconds = column.cast(pa.timestamp("us")).cast(pa.int64())
        return np.asarray(microseconds.to_numpy() / _MICROSECONDS, np.float64)
    return _numbers(column, what)


def _require(
    values: npt.NDArray[np.float64], low: float, high: float, what: str, source: str, first_row: int
) -> None:
    is_in_range = (values >= low) & (values <= high)
    if not is_in_range.all():
        row = int(np.argmin(is_in_range))
        raise InputRefused(
            f"{source}: row {first_row + row}: the {what} is {values[row]:g}:"
            f" expected {low:g} to {high:g}"
        )
