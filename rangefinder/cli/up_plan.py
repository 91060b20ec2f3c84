"""What `rangefinder up` starts: the map, and the configuration of every process."""

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rangefinder.cluster_map import ClusterMap, Node
from rangefinder.documents import to_yaml
from rangefinder.errors import AddressInUse, InputRefused
from rangefinder.map_file import map_of_release, read_map, write_map
from rangefinder.release import ReleaseManifest
from rangefinder.storage import write_text
from rangefinder.telemetry.logs import LogConfig, LogFormat
from ranker_service.config import RankerConfig
from router.config import RouterConfig
from shard_server.config import NodeConfig

# Below the ports that the system gives to outgoing connections: none of those can take one of ours
# while its process is being started again.
_PORTS = range(20_000, 32_000)

Config = NodeConfig | RankerConfig | RouterConfig

# A command on one machine: there is nobody in between who would have to notice that a process drains.
_ANNOUNCE_S = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOrder:
    """What is to be started."""

    release: Path
    data_dir: Path
    port: int
    node_count: int
    replica_count: int
    search_threads: int
    ranker_count: int
    router_workers: int
    cluster: str

    @property
    def address(self) -> str:
        """Of the API."""
        return f"127.0.0.1:{self.port}"


def require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise AddressInUse(f"port {port} is in use: choose another --port") from None


def make_folders(data_dir: Path) -> None:
    try:
        for name in ("run", "output", "map", "config"):
            (data_dir / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputRefused(f"--data-dir {data_dir}: {(error.strerror or '').lower()}") from None


def map_file_of(data_dir: Path) -> Path:
    """Where the cluster map of an `up` lies."""
    return data_dir / "map" / "map.json"


def place(order: UpOrder, manifest: ReleaseManifest) -> ClusterMap:
    """Write the map: the next epoch where the data directory has one."""
    path = map_file_of(order.data_dir)
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


def write_configuration(data_dir: Path, config: Config) -> list[str]:
    """Write the configuration file of a process; returns its arguments."""
    path = data_dir / "config" / f"{config.name}.yaml"
    write_text(path, to_yaml(config))
    return ["--config", str(path)]


def _own_cores(order: UpOrder) -> int:
    """Threads for a node of those on this machine: more than its part would only take turns."""
    return max(len(os.sched_getaffinity(0)) // order.node_count, 1)


def configurations(order: UpOrder, cluster_map: ClusterMap) -> list[Config]:
    """Of every process: nodes, rankers, router; metrics are at a free port of each."""
    log = LogConfig(format=LogFormat.PEOPLE)
    map_file = map_file_of(order.data_dir)
    ranker_count = order.ranker_count if cluster_map.release("").ranker_model else 0
    with _free_addresses() as free:
        nodes = [
            NodeConfig(
                name=node.name,
                listen=node.address,
                search_port=int(next(free).rsplit(":", 1)[1]),
                map_file=map_file,
                release=order.release,
                search_threads=order.search_threads or _own_cores(order),
                metrics=next(free),
                log=log,
            )
            for node in cluster_map.nodes
        ]
        rankers = [
            RankerConfig(
                name=f"ranker-{number}",
                listen=next(free),
                release=order.release,
                drain_announce_s=_ANNOUNCE_S,
                metrics=next(free),
                log=log,
            )
            for number in range(ranker_count)
        ]
        router = RouterConfig(
            name="router-0",
            listen=order.address,
            workers=order.router_workers,
            map_file=map_file,
            release=order.release,
            rankers=tuple(ranker.listen for ranker in rankers),
            drain_announce_s=_ANNOUNCE_S,
            metrics=next(free),
            log=log,
        )
    return [*nodes, *rankers, router]
