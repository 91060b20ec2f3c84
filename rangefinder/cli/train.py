"""`rangefinder train`: a release from a file of interactions."""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

from rangefinder.cli.output import ProgressBars, progress_bars
from rangefinder.cli.release_report import release_name
from rangefinder.cli.train_report import Source, TrainReport
from rangefinder.keys import IdKind
from rangefinder.metric import Metric
from rangefinder.release import IndexParameters, ReleaseExtras, ReleaseManifest
from rangefinder.storage import require_free
from shard_server.build.keyring import kind_of, make_keyring
from shard_server.build.parquet_source import ParquetSource
from shard_server.build.release_builder import PROBE_COUNT_MAX, BuildOrder, build_release
from shard_server.build.release_builder import Progress as BuildProgress
from shard_server.scoring import Rows
from training.items_file import write_items
from training.key_order import in_key_order
from training.read.interactions_file import ReadOptions, read_interactions, size_of
from training.read.layout import FileFormat
from training.read.titles import read_titles
from training.trainer import Progress, Trained, TrainOrder, train

_EXAMPLE = """
\b
Examples:
  rangefinder train --interactions ratings.dat --titles movies.dat --out release
  rangefinder train --interactions plays.csv --shards 4 --seed 7 --threads 1 --out release
  rangefinder train --interactions train.txt --format adjacency \\
      --titles movies.dat --titles-id-offset 1 --out release
"""


@click.command(epilog=_EXAMPLE)
@click.option(
    "--interactions",
    type=click.Path(path_type=Path),
    required=True,
    help="Who had what: CSV or TSV (user, item, rating, time; the last two may be absent), MovieLens"
    " ratings, adjacency lines (user item item ...), or Parquet.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to be made.")
@click.option(
    "--titles",
    type=click.Path(path_type=Path),
    help="Titles of the items: id and title, in CSV, TSV, or as MovieLens has them.",
)
@click.option(
    "--titles-id-offset",
    type=click.IntRange(-(2**31), 2**31),
    default=0,
    show_default=True,
    help="The id in the file of titles is that of the item plus this.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice([each.value for each in FileFormat]),
    default=FileFormat.AUTO.value,
    show_default=True,
    help="csv: one interaction a line, whatever the separator. auto: found by looking.",
)
@click.option("--separator", help="One character, '::', tab or space. Default: found by looking.")
@click.option("--encoding", help="Of the interactions, such as latin-1. Default: UTF-8.")
@click.option(
    "--id-kind",
    type=click.Choice([kind.value for kind in IdKind]),
    help="Of items. ordered: ranges of keys are ranges of ids. Default: integer if all are, else text.",
)
@click.option("--shards", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option(
    "--recall-target",
    type=click.FloatRange(0.5, 0.999),
    default=0.98,
    show_default=True,
    help="Recall that a search width of 0 holds.",
)
@click.option("--name", help="Name of the release. Default: that of the folder.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="With 1, the same file and seed give the same release. Default: one for each core.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    interactions: Path,
    out: Path,
    titles: Path | None,
    titles_id_offset: int,
    file_format: str,
    separator: str | None,
    encoding: str | None,
    id_kind: str | None,
    shards: int,
    recall_target: float,
    name: str | None,
    seed: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train a recommender and build its release: embeddings, indexes, tables of users and items, and a
    ranker where it beats the order without one."""
    options = ReadOptions(
        format=FileFormat(file_format),
        separator=separator,
        encoding=encoding,
        id_kind=IdKind(id_kind) if id_kind else None,
    )
    run = _Run(
        path=interactions,
        out=out,
        name=release_name(name, out),
        shard_count=shards,
        recall_target=recall_target,
        seed=seed,
        threads=threads or len(os.sched_getaffinity(0)),
    )
    require_free(out)  # Not after minutes of training.
    with progress_bars() as bars:
        source = _read(run, options, titles, titles_id_offset, bars)
        order = TrainOrder(
            interactions=source.interactions, id_kind=source.kind, seed=seed, threads=run.threads
        )
        trained = train(order, Progress(bars.begin, bars.advance))
        manifest = _build(run, source, trained, BuildProgress(bars.begin, bars.advance))
    report = TrainReport(source=source, trained=trained, manifest=manifest, seconds=bars.seconds())
    report.print(out, as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What the options say, but for how the file is read."""

    path: Path
    out: Path
    name: str
    shard_count: int
    recall_target: float
    seed: int
    threads: int


def _read(
    run: _Run, options: ReadOptions, titles: Path | None, offset: int, bars: ProgressBars
) -> Source:
    """Everything that can be refused or doubted is, before minutes of training."""
    bars.begin("reading interactions", size_of(run.path))
    taken_for: list[str] = []
    read = read_interactions(run.path, options, taken_for.append, bars.reach)
    kind = kind_of(read.interactions.item_ids, options.id_kind, str(run.path))
    interactions = in_key_order(read.interactions, kind)
    make_keyring(interactions.item_ids, kind, run.shard_count, str(run.path))
    names = None if titles is None else read_titles(titles, interactions.item_ids, offset)
    for warning in () if names is None else names.warnings:
        bars.warn(warning)
    return Source(
        interactions=interactions,
        kind=kind,
        titles=None if names is None else names.titles,
        taken_for=taken_for[0],
        repeated_count=read.repeated_count,
    )


def _build(run: _Run, source: Source, trained: Trained, progress: BuildProgress) -> ReleaseManifest:
    """The release, from a temporary file of items."""
    with TemporaryDirectory(prefix="rangefinder-train-") as folder:
        path = Path(folder) / "items.parquet"
        ids = source.interactions.item_ids
        write_items(path, ids, trained.factors.items, source.titles)
        order = BuildOrder(
            source=ParquetSource.open(path),
            out=run.out,
            name=run.name,
            metric=Metric.INNER_PRODUCT,
            id_kind=source.kind,
            shard_count=run.shard_count,
            index=IndexParameters(),
            recall_target=run.recall_target,
            jobs=min(run.threads, run.shard_count),
            probes=_probes(trained),
            write_extras=lambda folder: _write_extras(folder, trained),
        )
        return build_release(order, progress)


def _probes(trained: Trained) -> Rows:
    """Users' embeddings, evenly chosen: what the index will be asked."""
    users = trained.factors.users
    count = min(PROBE_COUNT_MAX, len(users))
    return users[np.arange(count) * len(users) // count]


def _write_extras(folder: Path, trained: Trained) -> ReleaseExtras:
    ranker = trained.ranker.ranker
    return ReleaseExtras(
        items=trained.items.save(folder),
        users=trained.users.save(folder),
        ranker=None if ranker is None else ranker.save(folder),
    )
