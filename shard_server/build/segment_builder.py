"""Pass two of a build: the segments of one shard from its spool, in a process of its own.

The probes that are items of the segment are added to the index last: it is calibrated without them, so
they are queries that it has not seen. That is why recall measured here holds for other queries too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rangefinder.documents import to_json
from rangefinder.keys import Keys
from rangefinder.merge import NO_SCORE, Scores
from rangefinder.metric import Metric
from rangefinder.release import IndexParameters
from rangefinder.storage import ArrayWriter, map_array, save_array, write_text
from rangefinder.texts import BLOB, ENDS, TextColumn, save_texts
from rangefinder.width import CALIBRATED_ITEM_COUNTS, Calibration
from shard_server import segment_files as files
from shard_server.attributes import write_in_order
from shard_server.build import spool
from shard_server.build.source import BLOCK_ROWS
from shard_server.build.spool import Advance
from shard_server.calibration import SearchAtWidth, calibrate, widened
from shard_server.exact import search_exactly
from shard_server.index.hnsw import HnswBuilder
from shard_server.scoring import Rows, row_lengths, score_rows

SEGMENT_ROWS_MAX = 2_000_000

# Fewer rows are searched exactly: looking at all of them costs about as much as an index would.
INDEXED_ROWS_MIN = 1_000

_ADDED_ROWS = 1_000  # Between two reports of progress.


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOrder:
    """What the build of one shard is told; crosses to its process."""

    name: str
    spool: Path
    out: Path
    dimension: int
    metric: Metric
    index: IndexParameters
    recall_target: float
    probes: Path  # float32 queries (probes, dimension).
    probe_keys: Path  # uint64 keys of those probes that are items; ascending.
    segment_rows_max: int = SEGMENT_ROWS_MAX


def build_shard(order: ShardOrder, advance: Advance) -> tuple[str, ...]:
    """Write the segments of one shard and return their names."""
    keys = np.load(order.spool / spool.KEYS)
    by_key = np.argsort(keys)
    segment_count = max(-(-len(keys) // order.segment_rows_max), 1)
    names = tuple(f"segment-{number}" for number in range(segment_count))
    for name, rows in zip(names, np.array_split(by_key, segment_count), strict=True):
        folder = order.out / name
        folder.mkdir(parents=True)
        _build_segment(order, folder, keys[rows], rows, advance)
    return names


def _build_segment(
    order: ShardOrder,
    folder: Path,
    keys: Keys,
    spooled: npt.NDArray[np.int64],
    advance: Advance,
) -> None:
    """Write one segment: the rows at the places `spooled` of the spool, in that order."""
    save_array(folder / files.KEYS, keys)
    rows, lengths = _write_rows(order, folder, spooled)
    text_bytes = _write_texts(order, folder, spooled)
    has_attributes = (order.spool / spool.ATTRIBUTES).exists()
    if has_attributes:
        write_in_order(order.spool / spool.ATTRIBUTES, spooled, folder / files.ATTRIBUTES)
    calibration = Calibration(curves=())
    if len(rows) >= INDEXED_ROWS_MIN:
        calibration = _IndexBuild(order, keys, rows, lengths, advance).run(folder / files.INDEX)
    else:
        advance(len(rows))
    description = files.SegmentDescription(
        row_count=len(rows),
        dimension=order.dimension,
        metric=order.metric,
        index=order.index if len(rows) >= INDEXED_ROWS_MIN else None,
        calibration=calibration,
        text_bytes=text_bytes,
        has_attributes=has_attributes,
    )
    write_text(folder / files.DESCRIPTION, to_json(description))


def _write_rows(
    order: ShardOrder, folder: Path, spooled: npt.NDArray[np.int64]
) -> tuple[Rows, npt.NDArray[np.float32]]:
    source = np.memmap(order.spool / spool.ROWS, np.float32, "r").reshape(-1, order.dimension)
    shape = (len(spooled), order.dimension)
    writer = ArrayWriter(folder / files.ROWS, np.float32, shape)
    lengths = np.empty(len(spooled), np.float32)
    for start in range(0, len(spooled), BLOCK_ROWS):
        block = source[spooled[start : start + BLOCK_ROWS]]
        lengths[start : start + len(block)] = row_lengths(block)
        writer.write(block)
    writer.close()
    save_array(folder / files.LENGTHS, lengths)
    return map_array(folder / files.ROWS, np.float32, shape), lengths


def _write_texts(order: ShardOrder, folder: Path, spooled: npt.NDArray[np.int64]) -> int | None:
    if not (order.spool / BLOB).exists():
        return None
    column = TextColumn(np.load(order.spool / BLOB), np.load(order.spool / ENDS))
    texts = column.take(spooled)
    save_texts(folder, texts)
    return len(texts.blob)


class _IndexBuild:
    """The index of one segment: built without the probes, calibrated, completed, written."""

    def __init__(
        self,
        order: ShardOrder,
        keys: Keys,
        rows: Rows,
        lengths: npt.NDArray[np.float32],
        advance: Advance,
    ) -> None:
        self._order, self._rows, self._lengths, self._advance = order, rows, lengths, advance
        self._probes: Rows = np.load(order.probes)
        self._held_out = np.flatnonzero(np.isin(keys, np.load(order.probe_keys)))

    def run(self, path: Path) -> Calibration:
        builder = HnswBuilder(
            self._order.metric, self._order.dimension, len(self._rows), self._order.index
        )
        others = np.setdiff1d(np.arange(len(self._rows)), self._held_out, assume_unique=True)
        self._add(builder, others)
        truth, search = self._truth(), self._search_with(builder)
        target = self._order.recall_target
        calibration = calibrate(truth, search, len(self._rows), target)
        if len(self._held_out):
            self._add(builder, self._held_out)
            truth = self._with_held_out(truth)
            calibration = widened(calibration, truth, search, len(self._rows), target)
        builder.save(path)
        return calibration

    def _add(self, builder: HnswBuilder, numbers: npt.NDArray[np.int64]) -> None:
        for part in _parts(numbers):
            builder.add(self._rows[part], part)
            self._advance(len(part))

    def _search_with(self, builder: HnswBuilder) -> SearchAtWidth:
        """What the index finds for the probes, as it is when asked."""

        def search(width: int, item_count: int, probe_count: int) -> Scores:
            queries = self._probes[:probe_count]
            found = builder.index.search(queries, width)[:, :item_count]
            scores = score_rows(self._order.metric, self._rows[found], queries[:, None])
            return -np.sort(-scores, axis=1)

        return search

    def _truth(self) -> Scores:
        """The best scores of each probe among the rows that were not held out."""
        wanted = min(CALIBRATED_ITEM_COUNTS[-1], len(self._rows) - len(self._held_out))
        _, scores = search_exactly(
            self._order.metric,
            self._rows,
            self._lengths,
            self._probes,
            wanted,
            [self._held_out] * len(self._probes),
        )
        truth = np.full((len(self._probes), wanted), NO_SCORE)
        for probe, best in enumerate(scores):
            truth[probe, : len(best)] = best
        return truth

    def _with_held_out(self, truth: Scores) -> Scores:
        """The best scores of each probe among all rows."""
        rows, lengths = self._rows[self._held_out], self._lengths[self._held_out]
        _, scores = search_exactly(self._order.metric, rows, lengths, self._probes, len(rows), [])
        both = np.concatenate([truth, np.array(scores)], axis=1)
        return -np.sort(-both, axis=1)[:, : truth.shape[1]]


def _parts(numbers: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(numbers), _ADDED_ROWS):
        yield numbers[start : start + _ADDED_ROWS]
