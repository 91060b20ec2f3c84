"""Attribute columns of a segment, typed and dictionary-coded: one Arrow IPC file, mapped.

    number -> float64    truth value -> bool    text -> dictionary of texts    list of texts -> list

An item that lacks an attribute has a null there. Rows stand beside those of the segment.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rangefinder.answers import AttributeValue
from rangefinder.errors import InputRefused, ReleaseDamaged

AttributeBatch = pa.RecordBatch
AttributeSchema = pa.Schema

# Larger integers are not exact as doubles: they are to be given as text.
_EXACT_INTEGER_MAX = 2**53

ATTRIBUTE_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class AttributeColumns:
    """Attributes by row number."""

    batch: pa.RecordBatch

    @classmethod
    def open(cls, path: Path) -> "AttributeColumns":
        """Map a file whose checksum was verified. Raises ReleaseDamaged."""
        try:
            return cls(pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0))
        except (pa.ArrowInvalid, OSError) as error:
            raise ReleaseDamaged(f"{path}: {error}") from None

    def take(self, rows: npt.NDArray[np.int64]) -> list[dict[str, AttributeValue]]:
        """What each of some rows has, in their order; without what it lacks."""
        return [
            {name: value for name, value in item.items() if value is not None}
            for item in self.batch.take(pa.array(rows)).to_pylist()
        ]


class AttributeSpool:
    """Attributes of one shard as they come, on disk, to be put in the order of its keys."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_stream(str(path), schema)

    def append(self, batch: pa.RecordBatch, rows: npt.NDArray[np.int64]) -> None:
        self._writer.write_batch(batch.take(pa.array(rows)))

    def close(self) -> None:
        self._writer.close()


def write_in_order(spool: Path, rows: npt.NDArray[np.int64], path: Path) -> None:
    """Write the attributes of some spooled rows, in their order, as the file of a segment."""
    with pa.memory_map(str(spool)) as source:
        table = pa.ipc.open_stream(source).read_all().take(pa.array(rows))
    columns = [_coded(column.combine_chunks()) for column in table.columns]
    batch = pa.record_batch(columns, names=table.column_names)
    with pa.ipc.new_file(str(path), batch.schema) as writer:
        writer.write_batch(batch)


def require_different(names: Sequence[str], source: str) -> None:
    """Refuse columns of which one name stands for two."""
    if repeated := {name for name, count in Counter(names).items() if count > 1}:
        raise InputRefused(f"{source}: two columns are called {min(repeated)!r}: rename one of them")


def typed_columns(batch: pa.RecordBatch, source: str, first_row: int) -> pa.RecordBatch:
    """The columns as attribute types. Raises InputRefused, naming the column or the row."""
    require_different(batch.schema.names, source)
    columns = [
        _typed(batch.column(name), f"{source}: column {name}", first_row) for name in batch.schema.names
    ]
    typed = pa.record_batch(columns, names=batch.schema.names)
    _require_small(typed, source, first_row)
    return typed


def _typed(column: pa.Array, place: str, first_row: int) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _typed(column.dictionary_decode(), place, first_row)
    if pa.types.is_integer(kind):
        return _numbers(column, place, first_row)
    if pa.types.is_floating(kind):
        return _finite(column.cast(pa.float64()), place, first_row)
    if pa.types.is_boolean(kind):
        return column
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _texts(column.cast(pa.large_string()), place, first_row)
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type):
        return _texts(column.cast(pa.large_list(pa.large_string())), place, first_row)
    raise InputRefused(
        f"{place}: {kind} cannot be an attribute: use numbers, truth values, text or lists of text"
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _numbers(column: pa.Array, place: str, first_row: int) -> pa.Array:
    values = column.to_pylist()
    for row, value in enumerate(values):
        if value is not None and abs(value) > _EXACT_INTEGER_MAX:
            raise InputRefused(
                f"{place}: row {first_row + row}: {value} is not exact as a number: write it as text"
            )
    return pa.array(values, pa.float64())


def _finite(column: pa.Array, place: str, first_row: int) -> pa.Array:
    """Refuse numbers that no JSON, and so no client, can hold."""
    values = column.to_numpy(zero_copy_only=False)
    bad = column.is_valid().to_numpy(zero_copy_only=False) & ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputRefused(f"{place}: row {first_row + row}: {values[row]}: leave it out, or use text")
    return column


def _texts(column: pa.Array, place: str, first_row: int) -> pa.Array:
    """Refuse what is no UTF-8, which Arrow does not look at by itself, and lists with gaps."""
    if not _is_utf8(column):
        row = next(row for row in range(len(column)) if not _is_utf8(column.slice(row, 1)))
        raise InputRefused(f"{place}: row {first_row + row}: not UTF-8")
    if pa.types.is_large_list(column.type) and column.flatten().null_count:
        row = next(row for row, texts in enumerate(column.to_pylist()) if texts and None in texts)
        raise InputRefused(f"{place}: row {first_row + row}: a text of the list is missing")
    return column


def _is_utf8(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _require_small(batch: pa.RecordBatch, source: str, first_row: int) -> None:
    """Refuse items whose attributes exceed the contract's limit; bytes of text are what can grow."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        sizes += len(name.encode()) + _value_sizes(column)
    if (sizes > ATTRIBUTE_BYTES_MAX).any():
        row = int(np.argmax(sizes > ATTRIBUTE_BYTES_MAX))
        raise InputRefused(
            f"{source}: row {first_row + row}: attributes of {sizes[row]} bytes:"
            f" at most {ATTRIBUTE_BYTES_MAX}"
        )


def _value_sizes(column: pa.Array) -> npt.NDArray[np.int64]:
    if not (pa.types.is_large_string(column.type) or pa.types.is_large_list(column.type)):
        return np.full(len(column), 8, np.int64)
    return np.fromiter((_size(value) for value in column.to_pylist()), np.int64, len(column))


def _size(value: str | list[str] | None) -> int:
    texts: Iterable[str] = (value,) if isinstance(value, str) else value or ()
    return sum(len(text.encode()) for text in texts)


def _coded(column: Any) -> pa.Array:
    """The column with its texts replaced by places in a dictionary."""
    if pa.types.is_large_string(column.type):
        return column.dictionary_encode()
    if pa.types.is_large_list(column.type):
        values = column.flatten().dictionary_encode()
        lengths = np.diff(column.offsets.to_numpy())
        lengths[column.is_null().to_numpy(zero_copy_only=False)] = 0
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return pa.LargeListArray.from_arrays(pa.array(offsets), values, mask=column.is_null())
    return column
