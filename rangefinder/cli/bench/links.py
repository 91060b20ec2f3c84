"""The way from a router to its nodes through proxies: each can be slowed or silenced for itself.

Nodes listen on 127.0.0.1; the router's map has them at 127.0.0.2, where a proxy stands before each of
their ports. A node tells its search port as it is, so the proxies have the same port numbers.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rangefinder.cli.bench.cluster import Cluster, free_port
from rangefinder.cli.bench.fault_proxy import FaultProxy, LinkFault
from rangefinder.cli.launcher import FileLauncher
from rangefinder.cli.up_plan import write_configuration
from rangefinder.cluster_map import ClusterMap
from rangefinder.documents import from_yaml
from rangefinder.errors import InputRefused
from rangefinder.map_file import write_map
from rangefinder.storage import read_text
from shard_server.config import NodeConfig

PROXY_HOST = "127.0.0.2"
_STOP_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Links:
    """Proxies by node, and the map of a router whose every connection goes through them."""

    cluster_map: ClusterMap
    proxies: dict[str, list[FaultProxy]]

    def set_fault(self, node: str, fault: LinkFault) -> None:
        """On all ways to a node."""
        for proxy in self.proxies[node]:
            proxy.set_fault(fault)


def require_proxies() -> None:
    """Raises InputRefused where this machine has no second address of its own: Linux has."""
    with socket.socket() as probe:
        try:
            probe.bind((PROXY_HOST, 0))
        except OSError as error:
            raise InputRefused(f"faults of lines need {PROXY_HOST}: {error.strerror}") from None


@asynccontextmanager
async def links_to(cluster_map: ClusterMap, ports: Mapping[str, int]) -> AsyncIterator[Links]:
    """Proxies before every node of a map until the block ends; ports: for searches, by node."""
    proxies: dict[str, list[FaultProxy]] = {}
    async with AsyncExitStack() as stack:
        for node in cluster_map.nodes:
            proxies[node.name] = [
                await stack.enter_async_context(
                    FaultProxy(f"127.0.0.1:{port}").listening(PROXY_HOST, port)
                )
                for port in (int(node.address.rsplit(":", 1)[1]), ports[node.name])
            ]
        yield Links(behind_proxies(cluster_map), proxies)


def search_ports(data_dir: Path) -> dict[str, int]:
    """Of every node of an `up`."""
    found: dict[str, int] = {}
    for path in sorted((data_dir / "config").glob("node-*.yaml")):
        config = from_yaml(read_text(path), NodeConfig, str(path))
        found[config.name] = config.search_port
    return found


def behind_proxies(cluster_map: ClusterMap) -> ClusterMap:
    """The map with every node at PROXY_HOST."""
    nodes = [
        replace(node, address=f"{PROXY_HOST}:{node.address.rsplit(':', 1)[1]}")
        for node in cluster_map.nodes
    ]
    return replace(cluster_map, nodes=tuple(nodes))


@asynccontextmanager
async def router_behind(links: Links, cluster: Cluster) -> AsyncIterator[Cluster]:
    """A second router of a cluster, but for its links like the first, until the block ends."""
    assert cluster.data_dir is not None, "its processes are of this machine"
    config = replace(
        cluster.router_config(),
        name="router-1",
        listen=f"127.0.0.1:{free_port()}",
        metrics=f"127.0.0.1:{free_port()}",
        map_file=cluster.data_dir / "map" / "behind-proxies.json",
    )
    write_map(config.map_file, links.cluster_map)
    launcher = FileLauncher(
        name=config.name,
        module="router",
        arguments=write_configuration(cluster.data_dir, config),
        data_dir=cluster.data_dir,
    )
    process = await launcher.start()
    try:
        yield replace(cluster, address=config.listen, router=config.name)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(_STOP_S_MAX):
            await process.wait()
