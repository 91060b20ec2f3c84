"""Pass one of a build: items are checked, cut by key and appended to a spool for each shard.

    <shard>/rows.f32        float32 rows, one after another
    <shard>/keys.npy        uint64, beside them
    <shard>/texts.npy, text_ends.npy    ids of a text cluster, beside them
    <shard>/attributes.arrows           attributes, beside them

Rows are read and written in blocks in the order of the source, so a catalogue may be larger than
memory; a shard is put in the order of its keys when it is built.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rangefinder.errors import InputRefused
from rangefinder.metric import Metric
from rangefinder.storage import save_array
from rangefinder.texts import TextColumn, save_texts
from shard_server.attributes import AttributeSchema, AttributeSpool
from shard_server.build.keyring import Keyring
from shard_server.build.source import Ids, ItemBlock, ItemSource
from shard_server.scoring import Rows, unit_rows

ROWS, KEYS, ATTRIBUTES = "rows.f32", "keys.npy", "attributes.arrows"

Advance = Callable[[int], None]  # Told how many rows were done.


@dataclass(frozen=True, slots=True)
class ShardSpool:
    """The open files of one shard."""

    folder: Path
    attributes: AttributeSpool | None

    @classmethod
    def create(cls, folder: Path, schema: AttributeSchema | None) -> "ShardSpool":
        folder.mkdir(parents=True)
        attributes = None if schema is None else AttributeSpool(folder / ATTRIBUTES, schema)
        return cls(folder, attributes)

    def append(self, block: ItemBlock, places: npt.NDArray[np.int64]) -> None:
        with open(self.folder / ROWS, "ab") as file:
            file.write(np.ascontiguousarray(block.rows[places]).data)
        if self.attributes is not None and block.attributes is not None:
            self.attributes.append(block.attributes, places)

    def close(self) -> None:
        if self.attributes is not None:
            self.attributes.close()


def spool_items(
    source: ItemSource,
    ids: Ids,
    keyring: Keyring,
    metric: Metric,
    folders: list[Path],
    probe_rows: npt.NDArray[np.int64],
    advance: Advance,
) -> Rows:
    """Write the spools and return the rows of the probes. Raises InputRefused, naming a bad row."""
    spools = [ShardSpool.create(folder, source.attribute_schema) for folder in folders]
    shards = keyring.shard_places(keyring.keys)
    _spool_ids(folders, ids, keyring, shards)
    probes = [np.empty((0, source.dimension), np.float32)]
    first = 0
    for block in source.blocks():
        _require_finite(block.rows, source.name, first)
        last = first + len(block.rows)
        probes.append(block.rows[probe_rows[(probe_rows >= first) & (probe_rows < last)] - first])
        kept = ItemBlock(unit_rows(block.rows), block.attributes) if metric is Metric.COSINE else block
        for shard, spool in enumerate(spools):
            spool.append(kept, np.flatnonzero(shards[first:last] == shard))
        advance(len(block.rows))
        first = last
    for spool in spools:
        spool.close()
    return np.concatenate(probes)


def _spool_ids(folders: list[Path], ids: Ids, keyring: Keyring, shards: npt.NDArray[np.intp]) -> None:
    for shard, folder in enumerate(folders):
        places = np.flatnonzero(shards == shard)
        save_array(folder / KEYS, keyring.keys[places])
        if isinstance(ids, TextColumn):
            save_texts(folder, ids.take(places))


def _require_finite(rows: Rows, source: str, first_row: int) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.vecdot(rows, rows)
    if np.isfinite(squares).all():
        return
    row = int(np.argmin(np.isfinite(squares)))
    what = "NaN or an infinity" if not np.isfinite(rows[row]).all() else "values too large to square"
    raise InputRefused(f"{source}: row {first_row + row}: the embedding holds {what}")
