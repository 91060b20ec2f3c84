"""`rangefinder eval`: how good the lists are that a running cluster answers, against a test file."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click

from rangefinder.cli.connection import ask, asks_a_cluster_within
from rangefinder.cli.eval_asking import (
    Answered,
    Evaluation,
    Tally,
    index_recall,
    percentiles_of,
    recommend_all,
    recommend_ms,
    recommend_one,
    retrieve_all,
    retrieve_ms,
)
from rangefinder.cli.eval_report import PIPELINE, POPULARITY, RETRIEVAL, LostNode, Report, Row, show
from rangefinder.cli.lost_node import KnownNode, known_node, node_killed
from rangefinder.cli.output import ProgressBars, progress_bars
from rangefinder.client import Client
from rangefinder.errors import CoverageTooLow, InputRefused
from rangefinder.item_tables import ItemTables
from rangefinder.release import ReleaseManifest, read_manifest
from rangefinder.user_tables import UserTables
from training.evaluation import difference, held_out, popular_lists
from training.metrics import Quality, quality_of
from training.read.interactions_file import read_interactions
from training.read.layout import FileFormat, ReadOptions

_EXAMPLE = """
\b
Examples:
  rangefinder eval --release release --test test.txt
  rangefinder eval --release release --test test.csv --users 1000 --json
  rangefinder eval --release release --test test.txt --kill-node node-1 --data-dir data

Exit code 1 where a request failed, or where nothing could be measured.
"""

_TIMED_CALLS = 500


@click.command(epilog=_EXAMPLE)
@click.option("--release", type=click.Path(path_type=Path), required=True, help="As it is served.")
@click.option("--test", type=click.Path(path_type=Path), required=True, help="Held-out interactions.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice([each.value for each in FileFormat]),
    default=FileFormat.AUTO.value,
    show_default=True,
    help="Of the test file.",
)
@click.option("--separator", help="Of the test file: one character, '::', tab or space.")
@click.option("--encoding", help="Of the test file.")
@click.option("--users", type=click.IntRange(2), help="Of the test file, at random. Default: all.")
@click.option(
    "--count", type=click.IntRange(1, 1000), default=20, show_default=True, help="List length."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Recommend requests in flight while quality is measured.",
)
@click.option("--kill-node", help="Measure again while this node of `rangefinder up` is dead.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Of that `rangefinder up`.")
@asks_a_cluster_within(1.0)
def command(
    release: Path,
    test: Path,
    file_format: str,
    separator: str | None,
    encoding: str | None,
    users: int | None,
    count: int,
    concurrency: int,
    kill_node: str | None,
    data_dir: Path | None,
    address: str,
    deadline_s: float,
    as_json: bool,
) -> None:
    """Ask a running cluster for the users of a test file, and print how good its lists are.

    Popularity is ranked by the table of the release, without the cluster. Retrieval alone is
    RetrieveBatch with the embeddings of the users. The whole pipeline is Recommend by user id. What
    the release has of a user is left out of all three.
    """
    if (kill_node is None) != (data_dir is None):
        raise click.UsageError("--kill-node and --data-dir go together")
    manifest = read_manifest(release)
    options = ReadOptions(
        format=FileFormat(file_format),
        separator=separator,
        encoding=encoding,
        id_kind=manifest.id_kind,
    )
    order = _evaluation(release, manifest, test, options, users, count, concurrency, deadline_s)

    async def work(client: Client) -> Report:
        node = await _require_served(client, manifest, address, kill_node, data_dir)
        with progress_bars() as bars:
            return await _measure(client, order, node, str(test), bars)

    report = ask(address, deadline_s, work)
    show(report, as_json)
    if report.failed:
        raise click.exceptions.Exit(1)


def _evaluation(
    release: Path,
    manifest: ReleaseManifest,
    test: Path,
    options: ReadOptions,
    users: int | None,
    count: int,
    concurrency: int,
    deadline_s: float,
) -> Evaluation:
    """Read what is asked for. Raises InputRefused where nothing could be measured."""
    item_tables = ItemTables.open(release, manifest)
    user_tables = UserTables.open(release, manifest)
    if item_tables is None or user_tables is None:
        raise InputRefused(
            f"{release}: a release without users: `rangefinder train` makes one with them"
        )
    read = read_interactions(test, options).interactions
    held = held_out(read, manifest.id_kind, user_tables, item_tables)
    if len(held) == 0:
        raise InputRefused(f"{test}: the release was trained on every pair: nothing is left to find")
    if users is not None:
        held = held.sample(users)
    if held.unknown_users == len(held):
        raise InputRefused(
            f"{test}: none of its {len(held):,} users is known to release {manifest.name}, such as"
            f" {held.user_ids[0]!r}: was it trained on the other part of the same set?"
        )
    return Evaluation(
        release=manifest.name,
        kind=manifest.id_kind,
        held=held,
        users=user_tables,
        items=item_tables,
        item_count=count,
        concurrency=concurrency,
        deadline_s=deadline_s,
    )


async def _require_served(
    client: Client,
    manifest: ReleaseManifest,
    address: str,
    kill_node: str | None,
    data_dir: Path | None,
) -> KnownNode | None:
    """The node to kill, if any. Raises InputRefused where the cluster serves another release."""
    cluster_map = await client.cluster_map()
    items = sum(shard.item_count for shard in cluster_map.shards)
    served, ours = (cluster_map.active_release, items), (manifest.name, manifest.item_count)
    if served != ours:
        raise InputRefused(
            f"{address} serves release {served[0]} of {served[1]:,} items,"
            f" not {ours[0]} of {ours[1]:,}: name the one that is served"
        )
    if kill_node is None or data_dir is None:
        return None
    return known_node(data_dir, kill_node, cluster_map.cluster, cluster_map.epoch)


async def _measure(
    client: Client, order: Evaluation, node: KnownNode | None, test: str, bars: ProgressBars
) -> Report:
    """Quality first, many in flight; then times, one in flight; then all of it without a node."""
    held = order.held
    popular = quality_of(popular_lists(held, order.items, order.item_count), held.relevant)
    retrieved = await retrieve_all(client, order, bars)
    recommended = await recommend_all(client, order, bars, PIPELINE)
    recall = await _recall(client, order, bars)
    times = await retrieve_ms(client, order, _TIMED_CALLS)
    base = quality_of(retrieved.lists, held.relevant)
    rows = [
        Row(name=POPULARITY, quality=popular),
        Row(
            name=RETRIEVAL,
            quality=base,
            tally=retrieved.tally,
            percentiles_ms=percentiles_of(times),
        ),
        await _pipeline_row(client, order, PIPELINE, recommended, base),
    ]
    lost = None
    if node is not None:
        async with _without(client, order, node) as dying:
            name = f"with {node.name} killed"
            lost = LostNode(node=node, dying=dying)
            recommended = await recommend_all(client, order, bars, name)
            rows.append(await _pipeline_row(client, order, name, recommended, base))
    return Report(
        release=order.release,
        test=test,
        item_count=order.item_count,
        held=held,
        rows=rows,
        index_recall=recall,
        lost=lost,
    )


async def _pipeline_row(
    client: Client, order: Evaluation, name: str, answered: Answered, base: Quality
) -> Row:
    quality = quality_of(answered.lists, order.held.relevant)
    return Row(
        name=name,
        quality=quality,
        difference=difference(quality.ndcg, base.ndcg),
        tally=answered.tally,
        percentiles_ms=percentiles_of(await recommend_ms(client, order, _TIMED_CALLS)),
    )


async def _recall(client: Client, order: Evaluation, bars: ProgressBars) -> float | None:
    try:
        return await index_recall(client, order, bars)
    except CoverageTooLow:
        return None


@asynccontextmanager
async def _without(client: Client, order: Evaluation, node: KnownNode) -> AsyncIterator[Tally]:
    """Kill a node while requests are under way; the tally is of those until the router knew.

    Within the block the node is dead, after it the cluster is whole again.
    """
    dying, is_known = Tally(), asyncio.Event()

    async def ask_on(place: int) -> None:
        while not is_known.is_set():
            await recommend_one(client, order, place % len(order.held), dying)
            place += order.concurrency

    async with asyncio.TaskGroup() as group:
        for number in range(order.concurrency):
            group.create_task(ask_on(number), name=f"ask-on-{number}")
        try:
            async with node_killed(client, node):
                is_known.set()
                yield dying
        finally:
            is_known.set()
