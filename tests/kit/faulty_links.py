"""A router whose links to the nodes can be slowed, cut and silenced, each for itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from rangefinder.cli.bench.fault_proxy import LinkFault
from rangefinder.cli.bench.links import Links, behind_proxies, links_to
from rangefinder.internal.v1.node_pb2 import GetNodeStatusRequest
from rangefinder.internal.v1.node_pb2_grpc import NodeServiceStub
from rangefinder.map_file import read_map, write_map
from router.config import RouterConfig
from tests.kit.processes import free_port
from tests.kit.recommending import running_router


@dataclass(frozen=True, slots=True)
class FaultyLinks:
    """The router's address, and the way to each node."""

    address: str
    metrics: str
    links: Links

    def set_fault(self, node: str, fault: LinkFault) -> None:
        """On all ways to a node."""
        self.links.set_fault(node, fault)


@asynccontextmanager
async def faulty_links(map_file: Path, folder: Path) -> AsyncIterator[FaultyLinks]:
    """A router of the nodes of a map, behind proxies, until the block ends."""
    config = router_behind_proxies(map_file, folder)
    assert config.metrics is not None
    nodes = read_map(map_file).nodes
    ports = {node.name: await _search_port(node.address) for node in nodes}
    async with links_to(read_map(map_file), ports) as links, running_router(config, folder):
        yield FaultyLinks(config.listen, config.metrics, links)


def router_behind_proxies(map_file: Path, folder: Path) -> RouterConfig:
    """The configuration of a router whose map has the nodes at PROXY_HOST."""
    write_map(folder / "proxied-map.json", behind_proxies(read_map(map_file)))
    return RouterConfig(
        name="router-behind-proxies",
        listen=f"127.0.0.1:{free_port()}",
        metrics=f"127.0.0.1:{free_port()}",
        map_file=folder / "proxied-map.json",
    )


async def _search_port(address: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        status = await NodeServiceStub(channel).GetNodeStatus(GetNodeStatusRequest(), timeout=10)
    return int(status.search_port)
