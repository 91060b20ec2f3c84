"""Items as the Parquet file that a release is built from: id, embedding, and title if there are any."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rangefinder.keys import IntegerIds
from rangefinder.texts import TextColumn
from training.factors import Embeddings

ID, EMBEDDING, TITLE = "id", "embedding", "title"


def write_items(
    path: Path, ids: IntegerIds | TextColumn, embeddings: Embeddings, titles: list[str] | None
) -> None:
    """Write the file, one row an item; an item without a title has none there."""
    flat = pa.array(embeddings.ravel())
    columns = {
        ID: [text.decode() for text in ids] if isinstance(ids, TextColumn) else ids,
        EMBEDDING: pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1]),
    }
    if titles is not None:
        columns[TITLE] = pa.array([title or None for title in titles], pa.string())
    pq.write_table(pa.table(columns), path)
