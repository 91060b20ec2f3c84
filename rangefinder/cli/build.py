"""`rangefinder build`: a release from a file of embeddings."""

import os
from pathlib import Path

import click
import numpy as np

from rangefinder.cli.output import print_json, print_line, progress_bars
from rangefinder.cli.release_report import (
    print_segments,
    release_name,
    segment_rows,
    segments_as_values,
)
from rangefinder.errors import InputRefused
from rangefinder.keys import IdKind
from rangefinder.metric import Metric
from rangefinder.release import IndexParameters, ReleaseManifest
from shard_server.build.npy_source import NpySource, read_matrix
from shard_server.build.parquet_source import ParquetSource
from shard_server.build.release_builder import PROBE_COUNT_MAX, BuildOrder, Progress, build_release
from shard_server.build.source import ItemSource
from shard_server.scoring import Rows

_EXAMPLE = """
\b
Examples:
  rangefinder build --embeddings X.npy --ids IDS.npy --metric cosine --shards 4 --out release
  rangefinder build --items ITEMS.parquet --metric ip --id-kind text --out release
"""


@click.command(epilog=_EXAMPLE)
@click.option("--embeddings", type=click.Path(path_type=Path), help="Matrix (.npy), one item a row.")
@click.option(
    "--ids",
    type=click.Path(path_type=Path),
    help="Ids beside the rows: .npy, or text with one id a line. Default: row numbers.",
)
@click.option(
    "--items",
    type=click.Path(path_type=Path),
    help="Parquet instead: columns id, embedding; every other column is an attribute.",
)
@click.option("--metric", type=click.Choice([m.value for m in Metric]), required=True)
@click.option(
    "--id-kind",
    type=click.Choice([kind.value for kind in IdKind]),
    help="ordered: ranges of keys are ranges of ids. Default: integer or text, as the ids are.",
)
@click.option("--shards", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to be made.")
@click.option("--name", help="Name of the release. Default: that of the folder.")
@click.option(
    "--recall-target",
    type=click.FloatRange(0.5, 0.999),
    default=0.98,
    show_default=True,
    help="Recall that a search width of 0 holds.",
)
@click.option(
    "--probes",
    type=click.Path(path_type=Path),
    help="Queries like those to come (.npy), to calibrate with. Default: held-out items.",
)
@click.option("--links", type=click.IntRange(2, 256), default=16, show_default=True, help="HNSW's M.")
@click.option(
    "--build-width",
    type=click.IntRange(8, 4096),
    default=200,
    show_default=True,
    help="HNSW's efConstruction.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    help="Shards built at once; each takes the memory of its index. Default: one for each core.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    embeddings: Path | None,
    ids: Path | None,
    items: Path | None,
    metric: str,
    id_kind: str | None,
    shards: int,
    out: Path,
    name: str | None,
    recall_target: float,
    probes: Path | None,
    links: int,
    build_width: int,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Build a release: shards by range of keys, indexed, checksummed and calibrated."""
    source = _source(embeddings, ids, items, IdKind(id_kind) if id_kind else None)
    order = BuildOrder(
        source=source,
        out=out,
        name=release_name(name, out),
        metric=Metric(metric),
        id_kind=IdKind(id_kind) if id_kind else None,
        shard_count=shards,
        index=IndexParameters(links=links, build_width=build_width),
        recall_target=recall_target,
        jobs=min(jobs or len(os.sched_getaffinity(0)), shards),
        probes=_probes(probes, source.dimension),
    )
    with progress_bars() as bars:
        manifest = build_release(order, Progress(bars.begin, bars.advance))
    _report(out, manifest, as_json)


def _source(
    embeddings: Path | None, ids: Path | None, items: Path | None, id_kind: IdKind | None
) -> ItemSource:
    if (embeddings is None) == (items is None):
        raise click.UsageError("give either --embeddings or --items")
    if items is not None and ids is not None:
        raise click.UsageError("--ids goes with --embeddings: a Parquet file holds its ids")
    if items is not None:
        return ParquetSource.open(items)
    assert embeddings is not None
    return NpySource.open(embeddings, ids, id_kind)


def _probes(path: Path | None, dimension: int) -> Rows | None:
    """Queries to calibrate with: evenly chosen, where the file has more than are used."""
    if path is None:
        return None
    matrix = read_matrix(path)
    if matrix.shape[1] != dimension:
        raise InputRefused(f"{path}: {matrix.shape[1]} columns, but embeddings have {dimension}")
    count = min(len(matrix), PROBE_COUNT_MAX)
    rows: Rows = matrix[np.arange(count) * len(matrix) // count].astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(np.vecdot(rows, rows)).all():
            raise InputRefused(f"{path}: a probe holds NaN, an infinity or values too large")
    return rows


def _report(out: Path, manifest: ReleaseManifest, as_json: bool) -> None:
    """What was built, and what a search width of 0 means in it."""
    rows = segment_rows(out, manifest)
    if as_json:
        print_json(
            {
                "release": manifest.name,
                "path": str(out),
                "items": manifest.item_count,
                "dimension": manifest.dimension,
                "segments": segments_as_values(rows),
            }
        )
        return
    print_segments(manifest, rows)
    print_line(f"next: rangefinder up --release {out} --data-dir {out}.cluster")
