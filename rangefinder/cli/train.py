"""`rangefinder train`: a release from a file of interactions."""

import os
from pathlib import Path

import click

from rangefinder.cli.release_report import release_name
from rangefinder.keys import IdKind
from rangefinder.storage import require_free
from training.read.layout import FileFormat, ReadOptions

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
    require_free(out)  # Not after minutes of training.
    try:
        # Much is needed to train: it would slow down the help of every command.
        from rangefinder.cli.training_run import TrainingRun
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is missing: pip install 'rangefinder[train]'"
        ) from None
    run = TrainingRun(
        path=interactions,
        options=options,
        titles=titles,
        titles_id_offset=titles_id_offset,
        out=out,
        name=release_name(name, out),
        shard_count=shards,
        recall_target=recall_target,
        seed=seed,
        threads=threads or len(os.sched_getaffinity(0)),
    )
    run.run().print(out, as_json)
