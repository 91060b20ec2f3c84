"""A shard as a node holds it: its segments, searched together; its items, read by key."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rangefinder import release
from rangefinder.answers import AttributeValue
from rangefinder.keys import Keys
from rangefinder.merge import Hits, merge_hits
from rangefinder.release import ReleaseManifest, ReleaseShard
from rangefinder.storage import map_array
from shard_server.calibration import recall_of_queries
from shard_server.scoring import Rows
from shard_server.segment import Search, Segment

# Recall@10 is what probes are judged by, and what `estimated_recall` tells.
PROBED_ITEM_COUNT = 10

# So few that what they take while loading is small beside the index.
_PROBES_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One item as it is kept."""

    key: int
    text: bytes | None
    row: Rows
    attributes: dict[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class Shard:
    """One range of a release: immutable; any number of threads may search it."""

    about: ReleaseShard
    segments: tuple[Segment, ...]

    @classmethod
    def open(cls, root: Path, manifest: ReleaseManifest, about: ReleaseShard) -> "Shard":
        """Verify and map the files of a shard. Raises ReleaseDamaged, naming the file."""
        folder = f"shards/{about.name}"
        release.verify(root, manifest, manifest.files_below(folder))
        return cls(about, tuple(Segment.open(root / folder / name) for name in about.segments))

    @property
    def name(self) -> str:
        return self.about.name

    @property
    def item_count(self) -> int:
        return sum(len(segment.keys) for segment in self.segments)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the files behind it: what it takes when all of it is in memory."""
        return sum(segment.file_bytes for segment in self.segments)

    @property
    def fallback_count(self) -> int:
        """Searches that an index could not answer, so that they were made exactly."""
        return sum(segment.fallbacks.count for segment in self.segments)

    def effort(self, search: Search) -> int:
        """About how long a search takes, as a number of candidates that an index looks at."""
        return sum(segment.effort(search) for segment in self.segments)

    def search(self, search: Search) -> Hits:
        """The best items of each query over all segments, in answer order."""
        found = [segment.search(search) for segment in self.segments]
        return merge_hits(found, search.wanted)

    def texts_of(self, keys: Keys) -> list[bytes]:
        """The text ids of keys that the shard holds, in their order."""
        texts: dict[int, bytes] = {}
        for segment in self.segments:
            if segment.texts is not None:
                for row in segment.rows_of_keys(keys).tolist():
                    texts[int(segment.keys[row])] = segment.texts[row]
        return [texts[key] for key in keys.tolist()]

    def read(self, keys: Keys) -> Iterator[StoredItem]:
        """Those items that exist, in no particular order."""
        for segment in self.segments:
            yield from segment_items(segment, segment.rows_of_keys(keys))

    def page(self, key_start: int, key_end: int, item_count: int) -> list[StoredItem]:
        """The first items in key order with key_start <= key < key_end."""
        items: list[StoredItem] = []
        for segment in self.segments:
            first = int(np.searchsorted(segment.keys, np.uint64(key_start)))
            last = len(segment.keys)
            if key_end < 2**64:
                last = int(np.searchsorted(segment.keys, np.uint64(key_end)))
            items += segment_items(segment, np.arange(first, min(last, first + item_count)))
        return sorted(items, key=lambda item: item.key)[:item_count]


def segment_items(segment: Segment, rows: npt.NDArray[np.int64]) -> list[StoredItem]:
    """Items of a segment by row number, in the order of the rows."""
    attributes = segment.attributes.take(rows) if segment.attributes else [{} for _ in rows]
    return [
        StoredItem(
            int(segment.keys[row]),
            segment.texts[row] if segment.texts is not None else None,
            segment.rows[row],
            values,
        )
        for row, values in zip(rows.tolist(), attributes, strict=True)
    ]


def load_probes(root: Path, manifest: ReleaseManifest) -> Rows:
    """The probe queries of a release: (probes, dimension). Raises ReleaseDamaged."""
    release.verify(root, manifest, [release.PROBES])
    rows: Rows = np.load(root / release.PROBES)
    return np.asarray(map_array(root / release.PROBES, np.float32, (len(rows), manifest.dimension)))


def probe_recall(shard: Shard, probes: Rows) -> float:
    """Recall@10 of the default width against an exact search of the same rows; 1 without probes."""
    if not len(probes):
        return 1.0
    recalls = [
        _recalls(shard, probes[start : start + _PROBES_AT_ONCE])
        for start in range(0, len(probes), _PROBES_AT_ONCE)
    ]
    return float(np.concatenate(recalls).mean())


def _recalls(shard: Shard, probes: Rows) -> npt.NDArray[np.float64]:
    wanted = np.full(len(probes), PROBED_ITEM_COUNT)
    truth = shard.search(Search(queries=probes, wanted=wanted, exact=True))
    found = shard.search(Search(queries=probes, wanted=wanted))
    return recall_of_queries(found.scores, truth.scores)


def search_shards(shards: Sequence[Shard], search: Search) -> Hits:
    """The best items of each query over several shards, in answer order."""
    return merge_hits([shard.search(search) for shard in shards], search.wanted)
