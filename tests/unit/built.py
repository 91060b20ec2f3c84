"""Small releases for the tests of what is built and searched: one for each metric, of nasty items."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from benchmarks.worlds import generate
from rangefinder.keys import IdKind
from rangefinder.metric import Metric
from rangefinder.release import IndexParameters, ReleaseManifest
from shard_server.build.npy_source import NpySource
from shard_server.build.parquet_source import ParquetSource
from shard_server.build.release_builder import BuildOrder, Progress, build_release
from shard_server.build.source import ItemSource
from shard_server.shard import Shard
from tests.kit import oracle
from tests.kit.oracle import splitmix64

Rows = npt.NDArray[np.float32]
Attributes = dict[str, Any]

DIMENSION = 16
ITEM_COUNT = 3_000
SHARD_COUNT = 2
RECALL_TARGET = 0.98

ID_KINDS = {
    Metric.INNER_PRODUCT: IdKind.INTEGER,
    Metric.COSINE: IdKind.TEXT,
    Metric.L2: IdKind.ORDERED,
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Built:
    """A release, what it was built from, and its shards."""

    source: ItemSource
    root: Path
    manifest: ReleaseManifest
    shards: tuple[Shard, ...]
    rows: Rows  # As given, by place in the source.
    keys: list[int]  # Beside them, as the oracle has them.
    texts: list[bytes]  # Ids of a text cluster, beside them.
    attributes: list[Attributes]  # Of a source that has them, beside them.
    queries: Rows

    @property
    def metric(self) -> Metric:
        return self.manifest.metric

    def truth(
        self, query: Rows, wanted: int, excluded: frozenset[int] = frozenset()
    ) -> list[tuple[int, float]]:
        """Keys and scores of the best items, by brute force; `excluded` holds keys."""
        scores = oracle.scores(self.metric.value, self.rows, query)
        left_out = frozenset(place for place, key in enumerate(self.keys) if key in excluded)
        best = oracle.best(scores, self.keys, wanted, left_out)
        return [(self.keys[place], score) for place, score in best]


def nasty_world(metric: Metric) -> tuple[Rows, Rows]:
    """Items with duplicates, zero vectors and short and long rows among them, and queries."""
    world = generate(ITEM_COUNT, DIMENSION, query_count=200, seed=list(Metric).index(metric))
    rows = world.rows
    rows[100:160] = rows[7]  # More equal items than most answers are long.
    rows[160:220] = rows[300:360]
    rows[220:223] = 0
    rows[230:240] *= np.float32(1e-12)
    if metric is not Metric.INNER_PRODUCT:  # Where no index gets past them, see test_segment_builder.
        rows[240:243] *= np.float32(1e6)
    queries = world.queries
    queries[0], queries[1] = rows[7], 0
    queries[2] *= np.float32(1e8)
    return rows, queries


def build(source: ItemSource, metric: Metric, out: Path) -> ReleaseManifest:
    order = BuildOrder(
        source=source,
        out=out,
        name=f"release-{metric.value}",
        metric=metric,
        id_kind=ID_KINDS[metric],
        shard_count=SHARD_COUNT,
        index=IndexParameters(),
        recall_target=RECALL_TARGET,
        jobs=1,
    )
    return build_release(order, Progress(lambda stage, count: None, lambda count: None))


def built(metric: Metric, folder: Path) -> Built:
    """Write the files of a catalogue, build it and open its shards."""
    rows, queries = nasty_world(metric)
    numbers = list(range(ITEM_COUNT))
    texts: list[bytes] = []
    attributes: list[Attributes] = []
    source: ItemSource
    if metric is Metric.COSINE:
        texts = [f"item {number} {'é' * (number % 50)}".encode() for number in numbers]
        keys = [int(xxhash.xxh3_64_intdigest(text)) for text in texts]
        np.save(folder / "rows.npy", rows)
        (folder / "ids.txt").write_bytes(b"\n".join(texts))
        source = NpySource.open(folder / "rows.npy", folder / "ids.txt", IdKind.TEXT)
    elif metric is Metric.L2:
        ids = [number * 10**15 - 10**18 for number in numbers]
        keys = [each + 2**63 for each in ids]
        attributes = [_attributes(number) for number in numbers]
        source = _parquet(folder / "items.parquet", ids, rows, attributes)
    else:
        ids = [(-1) ** number * number**5 for number in numbers]
        keys = [splitmix64(each) for each in ids]
        np.save(folder / "rows.npy", rows)
        np.save(folder / "ids.npy", np.array(ids))
        source = NpySource.open(folder / "rows.npy", folder / "ids.npy", None)
    manifest = build(source, metric, folder / "release")
    return Built(
        source=source,
        root=folder / "release",
        manifest=manifest,
        shards=tuple(Shard.open(folder / "release", manifest, each) for each in manifest.shards),
        rows=rows,
        keys=keys,
        texts=texts,
        attributes=attributes,
        queries=queries,
    )


def _attributes(number: int) -> Attributes:
    """Of one item: nothing, or something, of each type."""
    every: Attributes = {
        "title": f"item {number}",
        "price": number / 4,
        "is_new": number % 3 == 0,
        "tags": [f"tag {tag}" for tag in range(number % 4)],
        "brand": ("acme", "日本", "")[number % 3],
    }
    return {name: value for place, (name, value) in enumerate(every.items()) if number >> place & 1}


def _parquet(path: Path, ids: list[int], rows: Rows, attributes: list[Attributes]) -> ParquetSource:
    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([each.get(name) for each in attributes], kind)

    table = pa.table(
        {
            "id": pa.array(ids),
            "title": column("title", pa.string()),
            "embedding": pa.array(rows.tolist(), pa.list_(pa.float32(), DIMENSION)),
            "price": column("price", pa.float32()),
            "is_new": column("is_new", pa.bool_()),
            "tags": column("tags", pa.list_(pa.string())),
            "brand": column("brand", pa.string()).dictionary_encode(),
        }
    )
    pq.write_table(table, path, row_group_size=700)
    return ParquetSource.open(path)
