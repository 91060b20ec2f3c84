"""The files of a sealed segment, and the document that describes it.

segment.json     this description
keys.npy         uint64 (rows,), ascending: row numbers follow keys
rows.npy         float32 (rows, dimension); unit length in a cosine release
lengths.npy      float32 (rows,): length of each row
index.hnsw       the index; absent where the segment is searched exactly
texts.npy, text_ends.npy    ids of a text cluster, see rangefinder/texts.py
attributes.arrow            typed attribute columns, see attributes.py; absent where there are none
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rangefinder.documents import STRICT, Count, Positive, from_json
from rangefinder.errors import InputRefused, ReleaseDamaged
from rangefinder.metric import Metric
from rangefinder.release import IndexParameters
from rangefinder.storage import read_text
from rangefinder.width import Calibration

DESCRIPTION = "segment.json"
KEYS, ROWS, LENGTHS, INDEX = "keys.npy", "rows.npy", "lengths.npy", "index.hnsw"
ATTRIBUTES = "attributes.arrow"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentDescription:
    """What a segment holds. `index` is None where it is searched exactly."""

    __pydantic_config__: ClassVar = STRICT

    row_count: Count
    dimension: Positive
    metric: Metric
    index: IndexParameters | None
    calibration: Calibration
    text_bytes: Count | None  # Length of the blob of ids; None in an integer cluster.
    has_attributes: bool


def read_description(folder: Path) -> SegmentDescription:
    """Raises ReleaseDamaged where it is not what a build wrote."""
    path = folder / DESCRIPTION
    try:
        return from_json(read_text(path), SegmentDescription, str(path))
    except InputRefused as error:
        raise ReleaseDamaged(str(error)) from None
