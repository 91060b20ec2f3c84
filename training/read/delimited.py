"""One interaction a line (CSV, TSV, MovieLens), read in blocks by pyarrow's parser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from training.read.layout import Layout, Role, TimeKind
from training.read.raw_columns import MalformedValue, RawColumns, Vocabulary

_BLOCK_BYTES = 8 << 20
_MICROSECONDS = 1_000_000

Advance = Callable[[int], None]  # Told how many bytes were read.


def read_delimited(path: Path, layout: Layout, advance: Advance) -> RawColumns:
    """All lines. Raises MalformedValue where one is not of the layout."""
    raw = RawColumns()
    try:
        with open(path, "rb") as file:
            for batch in _batches(file, layout):
                _append(raw, batch)
                advance(file.tell())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeError, OSError) as error:
        raise MalformedValue(str(error)) from None
    return raw


def _batches(file: object, layout: Layout) -> Iterator[pa.RecordBatch]:
    # "::" is ":" with an empty column between every two.
    stride = len(layout.separator)
    names = [f"{number}" for number in range(stride * (len(layout.columns) - 1) + 1)]
    read = {names[stride * place]: role for role, place in layout.places.items()}
    with csv.open_csv(
        file,
        csv.ReadOptions(
            block_size=_BLOCK_BYTES,
            column_names=names,
            skip_rows=layout.skipped_lines,
            # Its own decoder is fast, and strict where columns are text.
            encoding="utf8" if layout.encoding in ("utf-8", "utf-8-sig") else layout.encoding,
        ),
        csv.ParseOptions(
            delimiter=layout.separator[0],
            quote_char='"' if layout.separator in ",;" else False,
        ),
        csv.ConvertOptions(
            column_types={name: _type_of(role, layout) for name, role in read.items()},
            include_columns=list(read),
            null_values=[],
        ),
    ) as reader:
        for batch in reader:
            yield batch.rename_columns([role.value for role in read.values()])


def _type_of(role: Role, layout: Layout) -> pa.DataType:
    if role in (Role.USER, Role.ITEM):
        return pa.dictionary(pa.int32(), pa.string())
    if role is Role.TIME and layout.time_kind is not TimeKind.SECONDS:
        return pa.timestamp("us", "UTC" if layout.time_kind is TimeKind.MOMENT_IN_ZONE else None)
    return pa.float64()


def _append(raw: RawColumns, batch: pa.RecordBatch) -> None:
    held = set(batch.schema.names)
    raw.append(
        _codes(batch.column(Role.USER.value), raw.user_texts),
        _codes(batch.column(Role.ITEM.value), raw.item_texts),
        batch.column(Role.RATING.value).to_numpy() if Role.RATING.value in held else None,
        _seconds(batch.column(Role.TIME.value)) if Role.TIME.value in held else None,
    )


def _codes(column: pa.DictionaryArray, vocabulary: Vocabulary) -> npt.NDArray[np.int32]:
    texts = [text.strip().encode() for text in column.dictionary.to_pylist()]
    codes: npt.NDArray[np.int32] = vocabulary.codes_of(texts)[column.indices.to_numpy()]
    return codes


def _seconds(column: pa.Array) -> npt.NDArray[np.float64]:
    if pa.types.is_timestamp(column.type):
        return np.asarray(column.cast(pa.int64()).to_numpy() / _MICROSECONDS, np.float64)
    times: npt.NDArray[np.float64] = column.to_numpy()
    return times
