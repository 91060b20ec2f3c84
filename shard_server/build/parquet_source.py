"""Items from a Parquet file: columns `id` and `embedding`; every other column is an attribute.

The fields of a struct column are attributes of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rangefinder.errors import InputRefused
from rangefinder.texts import TextColumn
from shard_server.attributes import require_different, typed_columns
from shard_server.build.source import (
    BLOCK_ROWS,
    Ids,
    ItemBlock,
    as_integer_ids,
    require_file,
    require_text_ids,
)
from shard_server.scoring import Rows

ID, EMBEDDING = "id", "embedding"

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """A Parquet file read in blocks of rows."""

    name: str
    file: pq.ParquetFile
    dimension: int

    @classmethod
    def open(cls, path: Path) -> "ParquetSource":
        """Raises InputRefused."""
        require_file(path)
        with _whole(str(path)):
            # By default the whole file is read ahead into memory.
            file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_BYTES)
            if missing := {ID, EMBEDDING} - set(file.schema_arrow.names):
                raise InputRefused(f"{path}: no column {min(missing)!r}")
            require_different(file.schema_arrow.names, str(path))
            if file.metadata.num_rows == 0:
                raise InputRefused(f"{path}: no rows")
            return cls(str(path), file, _dimension(file, path))

    @property
    def row_count(self) -> int:
        return int(self.file.metadata.num_rows)

    @property
    def attribute_schema(self) -> pa.Schema | None:
        names = self._attribute_names()
        if not names:
            return None
        empty = self.file.schema_arrow.empty_table().select(names)
        batch = pa.record_batch([c.combine_chunks() for c in empty.columns], names=names)
        return typed_columns(_flat(batch), self.name, 0).schema

    def ids(self) -> Ids:
        parts = [batch.column(0) for batch in self._batches([ID])]
        column = pa.chunked_array(parts)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise InputRefused(f"{self.name}: row {row}: the id is missing")
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            # As bytes: Arrow does not look whether they are UTF-8.
            texts = TextColumn.of(text.as_py() for text in column.cast(pa.large_binary()))
            return require_text_ids(texts, self.name)
        if not pa.types.is_integer(column.type):
            raise InputRefused(f"{self.name}: ids are {column.type}: give integers or text")
        return as_integer_ids(column.to_numpy(), self.name)

    def blocks(self) -> Iterator[ItemBlock]:
        names = self._attribute_names()
        first_row = 0
        for batch in self._batches([EMBEDDING, *names]):
            rows = self._rows(batch.column(EMBEDDING), first_row)
            attributes = None
            if names:
                with _whole(self.name):
                    attributes = typed_columns(_flat(batch.select(names)), self.name, first_row)
            yield ItemBlock(rows, attributes)
            first_row += len(rows)

    def _attribute_names(self) -> list[str]:
        return [name for name in self.file.schema_arrow.names if name not in (ID, EMBEDDING)]

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with _whole(self.name):
            yield from self.file.iter_batches(BLOCK_ROWS, columns=columns)

    def _rows(self, column: pa.Array, first_row: int) -> Rows:
        if column.null_count:
            row = first_row + column.is_null().to_pylist().index(True)
            raise InputRefused(f"{self.name}: row {row}: the embedding is missing")
        sizes = np.asarray(column.value_lengths())
        if (sizes != self.dimension).any():
            row = int(np.argmax(sizes != self.dimension))
            raise InputRefused(
                f"{self.name}: row {first_row + row}: an embedding of {sizes[row]} values,"
                f" not {self.dimension} as in row 0"
            )
        values = column.flatten().to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):  # What float32 cannot hold is refused as infinite.
            rows: Rows = values.astype(np.float32).reshape(-1, self.dimension)
        return rows


@contextmanager
def _whole(name: str) -> Iterator[None]:
    """Refuse a file that turns out to be damaged, whatever of it was being read."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise InputRefused(f"{name}: not a whole Parquet file: {why}") from None


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns, with the fields of a struct in its place: a struct `attributes` is common."""
    table = pa.table(batch)
    while any(pa.types.is_struct(field.type) for field in table.schema):
        names = [
            [inner.name for inner in field.type] if pa.types.is_struct(field.type) else [field.name]
            for field in table.schema
        ]
        table = table.flatten().rename_columns([name for group in names for name in group])
    return pa.record_batch([c.combine_chunks() for c in table.columns], names=table.column_names)


def _dimension(file: pq.ParquetFile, path: Path) -> int:
    kind = file.schema_arrow.field(EMBEDDING).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    is_list = is_list or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise InputRefused(f"{path}: embeddings are {kind}: give lists of float32")
    first = next(file.iter_batches(1, columns=[EMBEDDING])).column(0)[0].as_py()
    if not first:
        raise InputRefused(f"{path}: row 0: the embedding is missing or empty")
    return len(first)
