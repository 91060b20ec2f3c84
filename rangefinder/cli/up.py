"""`rangefinder up`: a cluster of real processes on this machine."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import click

from rangefinder.cli.launcher import FileLauncher
from rangefinder.cli.output import print_line
from rangefinder.cli.rolling import Member, restart_all
from rangefinder.cli.up_plan import (
    Config,
    UpOrder,
    configurations,
    make_folders,
    place,
    require_free,
    write_configuration,
)
from rangefinder.client import Client
from rangefinder.cluster_map import ClusterMap
from rangefinder.edge.readiness import ReadinessProbe
from rangefinder.errors import RangefinderError
from rangefinder.process import when_restart_asked
from rangefinder.release import read_manifest
from rangefinder.storage import exclusive
from rangefinder.supervised import Supervised
from ranker_service.config import RankerConfig
from router.config import RouterConfig
from shard_server.config import NodeConfig

_EXAMPLE = """
\b
Example:
  rangefinder up --release release --data-dir data --port 7000 --nodes 2
  rangefinder up --release release --data-dir data --nodes 2 --replicas 2 --router-workers 2

Processes: node-0, ... for each of --nodes; ranker-0, ... for each of --rankers, where the release has a
ranker; router-0 and its workers. Files: DATA-DIR/run/<process>.pid, DATA-DIR/output/<process>.txt;
DATA-DIR/config/<process>.yaml says where /metrics of each is.

Stops all of them on Ctrl-C or SIGTERM. On SIGHUP restarts one after another, and no request is lost:
nodes whose shards have another replica, rankers where there are two, workers where there are two. The
others are left as they are, and it says so.
"""

_MODULES: dict[type[Config], str] = {
    RouterConfig: "router",
    RankerConfig: "ranker_service",
    NodeConfig: "shard_server",
}

_POLL_S = 0.05
_STOP_S = 15.0

_Count = click.IntRange(1, 100)


@click.command(epilog=_EXAMPLE)
@click.option("--release", type=click.Path(path_type=Path), required=True, help="Made by `build`.")
@click.option("--data-dir", type=click.Path(path_type=Path), required=True, help="Map, logs, pids.")
@click.option(
    "--port", type=click.IntRange(1, 65_535), default=7000, show_default=True, help="Of the API."
)
@click.option("--nodes", type=_Count, default=2, show_default=True)
@click.option("--replicas", type=_Count, default=1, show_default=True, help="Of each shard.")
@click.option(
    "--search-threads",
    type=click.IntRange(0, 1024),
    default=0,
    show_default=True,
    help="Of each node; 0: its part of the cores.",
)
@click.option("--rankers", type=_Count, default=1, show_default=True)
@click.option(
    "--router-workers",
    type=click.IntRange(1, 128),
    default=1,
    show_default=True,
    help="Processes that share --port.",
)
@click.option("--cluster", default="local", show_default=True, help="Name of the cluster.")
def command(
    release: Path,
    data_dir: Path,
    port: int,
    nodes: int,
    replicas: int,
    search_threads: int,
    rankers: int,
    router_workers: int,
    cluster: str,
) -> None:
    """Start nodes, rankers and router, print READY when requests are answered, watch over all."""
    order = UpOrder(
        release=release.resolve(),
        data_dir=data_dir.resolve(),
        port=port,
        node_count=nodes,
        replica_count=replicas,
        search_threads=search_threads,
        ranker_count=rankers,
        router_workers=router_workers,
        cluster=cluster,
    )
    manifest = read_manifest(order.release)
    require_free(port)
    make_folders(order.data_dir)
    with exclusive(order.data_dir / "run" / "up.lock", "rangefinder up"):
        for stale in (order.data_dir / "run").glob("*.pid"):
            stale.unlink()  # Of one that was killed: the number may be another's by now.
        cluster_map = place(order, manifest)
        asyncio.run(_supervise(order, cluster_map))


def _member(order: UpOrder, config: Config) -> Member:
    launcher = FileLauncher(
        name=config.name,
        module=_MODULES[type(config)],
        arguments=write_configuration(order.data_dir, config),
        data_dir=order.data_dir,
    )
    supervised = Supervised(name=config.name, launcher=launcher, tell=_tell)
    return Member(config=config, supervised=supervised)


async def _supervise(order: UpOrder, cluster_map: ClusterMap) -> None:
    """Run the processes until a signal comes, or one of them cannot run."""
    stopped, restart_asked = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    when_restart_asked(restart_asked.set)
    members = [_member(order, config) for config in configurations(order, cluster_map)]
    running = [asyncio.create_task(each.supervised.run(), name=each.config.name) for each in members]
    waiting = asyncio.create_task(_until(stopped), name="stopped")
    serving = asyncio.create_task(
        _serve(order, cluster_map, members, restart_asked), name="announce-and-restart"
    )
    try:
        failures = [each.supervised.failure for each in members]
        ends: list[asyncio.Future[None]] = [waiting, *failures, *running]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in (*failures, *running):
            if end.done():
                end.result()
    finally:
        serving.cancel()
        waiting.cancel()
        await _stop(members)
        for task in running:
            task.cancel()
        await asyncio.gather(serving, waiting, *running, return_exceptions=True)
        for each in members:
            each.supervised.failure.cancel()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _stop(members: list[Member]) -> None:
    """Routers first: they still need the others to answer what is under way."""
    for kind in _MODULES:
        of_kind = (each.supervised for each in members if isinstance(each.config, kind))
        await asyncio.gather(*(each.stop(_STOP_S) for each in of_kind))


async def _serve(
    order: UpOrder, cluster_map: ClusterMap, members: list[Member], restart_asked: asyncio.Event
) -> None:
    """Announce the cluster, then restart its processes whenever it is asked for."""
    await _announce(order, members)
    while True:
        await restart_asked.wait()
        restart_asked.clear()
        await restart_all(members, cluster_map, _tell)


async def _announce(order: UpOrder, members: list[Member]) -> None:
    """Print READY when every ranker and every replica answers."""
    for each in members:
        if isinstance(each.config, RankerConfig):
            await _until_ready(each.config.listen)
    async with Client(order.address, deadline_s=1.0) as client:
        while True:
            with contextlib.suppress(RangefinderError):
                status = await client.cluster_status()
                if all(replica.healthy for replica in status.replicas):
                    break
            await asyncio.sleep(_POLL_S)
    for each in members:
        each.supervised.has_served = True
    print_line(f"READY {order.address}")
    sys.stdout.flush()


async def _until_ready(address: str) -> None:
    async with ReadinessProbe(address) as probe:
        while not await probe.is_ready(within_s=1.0):
            await asyncio.sleep(_POLL_S)


def _tell(text: str) -> None:
    click.echo(f"rangefinder: {text}", err=True)
