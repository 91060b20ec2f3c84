"""What is measured: a release, and queries for it. Built once, found again by what it is made of."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rangefinder.cli.bench.world import GeneratedSource
from rangefinder.cli.output import ProgressBars
from rangefinder.errors import InputRefused
from rangefinder.hashing import FileChecksum
from rangefinder.metric import Metric
from rangefinder.release import FORMAT, MANIFEST, IndexParameters, ReleaseManifest, read_manifest
from rangefinder.storage import checksum
from shard_server.build.npy_source import NpySource, read_matrix
from shard_server.build.release_builder import BuildOrder, Progress, build_release
from shard_server.build.source import ItemSource
from shard_server.scoring import Rows
from shard_server.shard import load_probes

REAL_SET = "sift-caltech-200k"
ITEM_COUNT, DIMENSION = 200_000, 128  # Of a generated world, as the real set has them.
QUERY_COUNT = 1_000
DATA_VARIABLE = "RANGEFINDER_DATA"

# What `build` has by default.
_RECALL_TARGET = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A release on disk, and what it is asked."""

    catalogue: str  # For people.
    path: Path
    manifest: ReleaseManifest
    queries: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Something that a release can be built from."""

    name: str
    identity: str  # Equal for equal content.
    metric: Metric
    open_source: Callable[[], ItemSource]
    queries: Callable[[], Rows]

    def build(self, folder: Path, shard_count: int, bars: ProgressBars) -> Subject:
        """The release in a folder of releases, built unless it is there. Raises InputRefused."""
        path = folder / f"{self.name}-{self._digest(shard_count)}"
        if not (path / MANIFEST).is_file():
            order = BuildOrder(
                source=self.open_source(),
                out=path,
                name=self.name,
                metric=self.metric,
                id_kind=None,
                shard_count=shard_count,
                index=IndexParameters(),
                recall_target=_RECALL_TARGET,
                jobs=min(len(os.sched_getaffinity(0)), shard_count),
                probes=self.queries(),
            )
            build_release(order, Progress(bars.begin, bars.advance))
        return Subject(
            catalogue=self.name, path=path, manifest=read_manifest(path), queries=self.queries()
        )

    def _digest(self, shard_count: int) -> str:
        made_of = (self.identity, self.metric, shard_count, IndexParameters(), _RECALL_TARGET, FORMAT)
        state = FileChecksum()
        state.update(repr(made_of).encode())
        return state.hexdigest()[:16]


def generated(item_count: int, dimension: int, seed: int) -> Catalogue:
    """A world of any size."""
    source = GeneratedSource(row_count=item_count, dimension=dimension, seed=seed)
    return Catalogue(
        name=f"generated-{item_count}x{dimension}",
        identity=repr(source),
        metric=Metric.L2,
        open_source=lambda: source,
        queries=lambda: source.queries(QUERY_COUNT),
    )


def real_sets() -> Path | None:
    """Where the environment says that real data lie."""
    named = os.environ.get(DATA_VARIABLE)
    return Path(named) if named else None


def real_set(folder_of_sets: Path | None) -> Catalogue | None:
    """The SIFT descriptors where there are any; never copied."""
    if folder_of_sets is None or not (folder_of_sets / REAL_SET / "base.npy").is_file():
        return None
    folder = folder_of_sets / REAL_SET
    return Catalogue(
        name=REAL_SET,
        identity=checksum(folder / "base.npy"),
        metric=Metric.L2,
        open_source=lambda: NpySource.open(folder / "base.npy", None, None),
        queries=lambda: read_matrix(folder / "query.npy")[:QUERY_COUNT].astype(np.float32),
    )


def of_release(path: Path) -> Subject:
    """A release as it is, asked with its probes. Raises InputRefused or ReleaseDamaged."""
    manifest = read_manifest(path)
    queries = load_probes(path, manifest)[:QUERY_COUNT]
    if not len(queries):
        raise InputRefused(f"--release {path}: it has no probes to ask it with: too few items")
    return Subject(
        catalogue=manifest.name,
        path=path.resolve(),
        manifest=manifest,
        queries=np.ascontiguousarray(queries),
    )
