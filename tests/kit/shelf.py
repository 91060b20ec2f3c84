"""A catalogue with attributes of every type, as a Parquet file that others might write."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.kit.nasty_world import Catalogue, catalogue_of

ITEM_COUNT = 2_000
DIMENSION = 1_024  # 782 of these embeddings are more than a GetItems may ask for.

# Items whose attributes are so long that a thousand of them exceed an answer.
LONG_COUNT, LONG_BYTES = 1_000, 6_500

Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Items, and what each of them has: attributes beside the rows of the catalogue."""

    catalogue: Catalogue
    attributes: list[Attributes]

    def write(self, path: Path) -> None:
        """Write the Parquet file: an absent attribute is a null, some are fields of a struct."""
        columns = {
            "id": pa.array(self.catalogue.ids, pa.int64()),
            "embedding": pa.array(list(self.catalogue.rows), pa.list_(pa.float32())),
            "price": self._column("price", pa.float64()),
            "rating": self._column("rating", pa.float32()),
            "stock": self._column("stock", pa.int32()),
            "is_new": self._column("is_new", pa.bool_()),
            "title": self._column("title", pa.string()),
            "brand": self._column("brand", pa.string()).dictionary_encode(),
            "tags": self._column("tags", pa.list_(pa.string())),
            "note": self._column("note", pa.large_string()),
            "nothing": pa.nulls(ITEM_COUNT, pa.string()),
            "looks": pa.StructArray.from_arrays(
                [self._column("colour", pa.string()), self._column("weight", pa.float64())],
                ["colour", "weight"],
            ),
        }
        pq.write_table(pa.table(columns), path, row_group_size=300)

    def _column(self, name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([each.get(name) for each in self.attributes], kind)


def make_shelf() -> Shelf:
    """2,000 items under cosine with ids from -1,000 on; no two have quite the same attributes."""
    random = np.random.default_rng(11)
    rows = random.standard_normal((ITEM_COUNT, DIMENSION)).astype(np.float32)
    rows *= 10.0 ** random.uniform(-3, 3, (ITEM_COUNT, 1)).astype(np.float32)
    rows[7] = 0
    ids = (np.arange(ITEM_COUNT) - 1_000).tolist()
    queries = random.standard_normal((4, DIMENSION)).astype(np.float32)
    return Shelf(
        catalogue=catalogue_of("cosine", "integer", ids, rows, queries),
        attributes=[_attributes(row) for row in range(ITEM_COUNT)],
    )


def _attributes(row: int) -> Attributes:
    """What one item has; None is what it lacks."""
    every: Attributes = {
        "price": [19.5, -0.0, 1e300, 5e-324, 0.1][row % 5],
        "rating": float(np.float32(row / 7)),
        "stock": [row, -row, 2**31 - 1][row % 3],
        "is_new": row % 2 == 0,
        "title": ["plain", "", "日本 🙂\u0000\n", f"no. {row}"][row % 4],
        "brand": f"brand {row % 3}",
        "tags": [[], ["a"], ["a", "a", "é"], [""]][row % 4],
        "note": "x" * LONG_BYTES if row < LONG_COUNT else None,
        "colour": ["red", "blue"][row % 2],
        "weight": row / 3,
    }
    lacking = [name for place, name in enumerate(every) if (row + place) % 4 == 0]
    return {name: value for name, value in every.items() if name not in lacking and value is not None}
