"""`rangefinder up`: a cluster of real processes on this machine."""

import asyncio
import contextlib
import random
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from rangefinder.cli.output import print_line
from rangefinder.cli.supervisor import Supervised
from rangefinder.client import Client
from rangefinder.cluster_map import ClusterMap, Node
from rangefinder.documents import to_yaml
from rangefinder.edge.readiness import ReadinessProbe
from rangefinder.errors import AddressInUse, InputRefused, RangefinderError
from rangefinder.map_file import map_of_release, read_map, write_map
from rangefinder.release import ReleaseManifest, read_manifest
from rangefinder.storage import exclusive, write_text
from rangefinder.telemetry.logs import LogConfig, LogFormat
from ranker_service.config import RankerConfig
from router.config import RouterConfig
from shard_server.config import NodeConfig

_EXAMPLE = """
\b
Example:
  rangefinder up --release release --data-dir data --port 7000 --nodes 2

Processes: a node-0, ... for each of --nodes, ranker-0 where the release has a ranker, router-0. Stops
all of them on Ctrl-C or SIGTERM. Files: DATA-DIR/run/<process>.pid, DATA-DIR/output/<process>.txt;
DATA-DIR/config/<process>.yaml says where /metrics of each is.
"""

# Below the ports that the system gives to outgoing connections: none of those can take one of ours
# while its process is being started again.
_PORTS = range(20_000, 32_000)

Config = NodeConfig | RankerConfig | RouterConfig

_POLL_S = 0.05
_STOP_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOrder:
    """What is to be started."""

    release: Path
    data_dir: Path
    port: int
    node_count: int
    replica_count: int
    cluster: str


@click.command(epilog=_EXAMPLE)
@click.option("--release", type=click.Path(path_type=Path), required=True, help="Made by `build`.")
@click.option("--data-dir", type=click.Path(path_type=Path), required=True, help="Map, logs, pids.")
@click.option(
    "--port", type=click.IntRange(1, 65_535), default=7000, show_default=True, help="Of the API."
)
@click.option("--nodes", type=click.IntRange(1, 100), default=2, show_default=True)
@click.option(
    "--replicas", type=click.IntRange(1, 100), default=1, show_default=True, help="Of each shard."
)
@click.option("--cluster", default="local", show_default=True, help="Name of the cluster.")
def command(release: Path, data_dir: Path, port: int, nodes: int, replicas: int, cluster: str) -> None:
    """Start nodes, ranker and router, print READY when requests are answered, watch over all."""
    order = UpOrder(
        release=release.resolve(),
        data_dir=data_dir.resolve(),
        port=port,
        node_count=nodes,
        replica_count=replicas,
        cluster=cluster,
    )
    manifest = read_manifest(order.release)
    _require_free(port)
    _make_folders(order.data_dir)
    with exclusive(order.data_dir / "run" / "up.lock", "rangefinder up"):
        for stale in (order.data_dir / "run").glob("*.pid"):
            stale.unlink()  # Of one that was killed: the number may be another's by now.
        cluster_map = _place(order, manifest)
        asyncio.run(_supervise(order, cluster_map))


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise AddressInUse(f"port {port} is in use: choose another --port") from None


def _make_folders(data_dir: Path) -> None:
    try:
        for name in ("run", "output", "map", "config"):
            (data_dir / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputRefused(f"--data-dir {data_dir}: {(error.strerror or '').lower()}") from None


def _place(order: UpOrder, manifest: ReleaseManifest) -> ClusterMap:
    """Write the map: the next epoch where the data directory has one."""
    path = order.data_dir / "map" / "map.json"
    epoch = 1
    if path.exists():
        before = read_map(path)
        if before.cluster != order.cluster:
            raise InputRefused(
                f"{order.data_dir} holds cluster {before.cluster}, not {order.cluster}:"
                " choose another --data-dir"
            )
        epoch = before.epoch + 1
    with _free_addresses() as addresses:
        nodes = tuple(
            Node(name=f"node-{number}", address=next(addresses)) for number in range(order.node_count)
        )
    cluster_map = map_of_release(
        manifest, nodes, order.replica_count, cluster=order.cluster, epoch=epoch
    )
    write_map(path, cluster_map)
    return cluster_map


@contextmanager
def _free_addresses() -> Iterator[Iterator[str]]:
    """Different free ports of this machine as host:port, held until the block ends."""
    with contextlib.ExitStack() as held:

        def find() -> Iterator[str]:
            for port in random.sample(_PORTS, len(_PORTS)):
                probe = held.enter_context(socket.socket())
                with contextlib.suppress(OSError):
                    probe.bind(("127.0.0.1", port))
                    yield f"127.0.0.1:{port}"
            raise AddressInUse("no free port for a node")

        yield find()


def _configure(order: UpOrder, name: str, config: Config) -> list[str]:
    """Write the configuration file of a process; returns its arguments."""
    path = order.data_dir / "config" / f"{name}.yaml"
    write_text(path, to_yaml(config))
    return ["--config", str(path)]


def _planned(order: UpOrder, cluster_map: ClusterMap) -> list[tuple[str, Config]]:
    with _free_addresses() as addresses:
        return list(_configs(order, cluster_map, addresses))


def _supervised(order: UpOrder, module: str, config: Config) -> Supervised:
    return Supervised(
        name=config.name,
        module=module,
        arguments=_configure(order, config.name, config),
        data_dir=order.data_dir,
        tell=_tell,
    )


def _configs(
    order: UpOrder, cluster_map: ClusterMap, free: Iterator[str]
) -> Iterator[tuple[str, Config]]:
    """Module and configuration of every process; metrics are at a free port of each."""
    log = LogConfig(format=LogFormat.PEOPLE)
    map_file = order.data_dir / "map" / "map.json"
    for node in cluster_map.nodes:
        node_config = NodeConfig(
            name=node.name,
            listen=node.address,
            search_port=0,
            map_file=map_file,
            release=order.release,
            metrics=next(free),
            log=log,
        )
        yield "shard_server", node_config
    rankers = (next(free),) if cluster_map.release("").ranker_model else ()
    for number, address in enumerate(rankers):
        ranker_config = RankerConfig(
            name=f"ranker-{number}",
            listen=address,
            release=order.release,
            metrics=next(free),
            log=log,
        )
        yield "ranker_service", ranker_config
    router_config = RouterConfig(
        name="router-0",
        listen=f"127.0.0.1:{order.port}",
        map_file=map_file,
        release=order.release,
        rankers=rankers,
        metrics=next(free),
        log=log,
    )
    yield "router", router_config


async def _supervise(order: UpOrder, cluster_map: ClusterMap) -> None:
    """Run the processes until a signal comes, or one of them cannot run."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    planned = _planned(order, cluster_map)
    processes = [_supervised(order, *each) for each in planned]
    rankers = [config.listen for _, config in planned if isinstance(config, RankerConfig)]
    running = [asyncio.create_task(each.run(), name=each.name) for each in processes]
    waiting = asyncio.create_task(_until(stopped), name="stopped")
    ready = asyncio.create_task(_announce(order, processes, rankers), name="announce")
    try:
        failures = [each.failure for each in processes]
        ends: list[asyncio.Future[None]] = [waiting, *failures, *running]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in (*failures, *running):
            if end.done():
                end.result()
    finally:
        ready.cancel()
        waiting.cancel()
        await _stop(processes)
        for task in running:
            task.cancel()
        await asyncio.gather(ready, waiting, *running, return_exceptions=True)
        for each in processes:
            each.failure.cancel()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _stop(processes: list[Supervised]) -> None:
    """Routers first: they still need the others to answer what is under way."""
    for module in ("router", "ranker_service", "shard_server"):
        await asyncio.gather(*(each.stop(_STOP_S) for each in processes if each.module == module))


async def _announce(order: UpOrder, processes: list[Supervised], rankers: list[str]) -> None:
    """Print READY when every ranker and every replica answers."""
    address = f"127.0.0.1:{order.port}"
    for ranker in rankers:
        await _until_ready(ranker)
    async with Client(address, deadline_s=1.0) as client:
        while True:
            with contextlib.suppress(RangefinderError):
                status = await client.cluster_status()
                if all(replica.healthy for replica in status.replicas):
                    break
            await asyncio.sleep(_POLL_S)
    for each in processes:
        each.has_served = True
    print_line(f"READY {address}")
    sys.stdout.flush()


async def _until_ready(address: str) -> None:
    async with ReadinessProbe(address) as probe:
        while not await probe.is_ready(within_s=1.0):
            await asyncio.sleep(_POLL_S)


def _tell(text: str) -> None:
    click.echo(f"rangefinder: {text}", err=True)
