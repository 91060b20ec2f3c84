"""A router whose links to the nodes can be slowed, cut and silenced, each for itself.

Nodes listen on 127.0.0.1; the router's map has them at 127.0.0.2, where a proxy stands before each of
their ports. A node tells its search port as it is, so the proxies have the same port numbers.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from rangefinder.internal.v1.node_pb2 import GetNodeStatusRequest
from rangefinder.internal.v1.node_pb2_grpc import NodeServiceStub
from rangefinder.map_file import read_map, write_map
from router.config import RouterConfig
from tests.kit.fault_proxy import Fault, FaultProxy
from tests.kit.processes import free_port
from tests.kit.recommending import running_router

PROXY_HOST = "127.0.0.2"


@dataclass(frozen=True, slots=True)
class FaultyLinks:
    """The router's address, and the way to each node."""

    address: str
    metrics: str
    proxies: dict[str, list[FaultProxy]]

    def set_fault(self, node: str, fault: Fault) -> None:
        """On all ways to a node."""
        for proxy in self.proxies[node]:
            proxy.set_fault(fault)


@asynccontextmanager
async def faulty_links(map_file: Path, folder: Path) -> AsyncIterator[FaultyLinks]:
    """A router of the nodes of a map, behind proxies, until the block ends."""
    config = router_behind_proxies(map_file, folder)
    assert config.metrics is not None
    async with AsyncExitStack() as stack:
        proxies: dict[str, list[FaultProxy]] = {}
        for node in read_map(map_file).nodes:
            ports = [int(node.address.rsplit(":", 1)[1]), await _search_port(node.address)]
            proxies[node.name] = [
                await stack.enter_async_context(
                    FaultProxy(f"127.0.0.1:{port}").listening(PROXY_HOST, port)
                )
                for port in ports
            ]
        await stack.enter_async_context(running_router(config, folder))
        yield FaultyLinks(config.listen, config.metrics, proxies)


def router_behind_proxies(map_file: Path, folder: Path) -> RouterConfig:
    """The configuration of a router whose map has the nodes at PROXY_HOST."""
    cluster_map = read_map(map_file)
    nodes = [
        replace(node, address=f"{PROXY_HOST}:{node.address.rsplit(':', 1)[1]}")
        for node in cluster_map.nodes
    ]
    write_map(folder / "proxied-map.json", replace(cluster_map, nodes=tuple(nodes)))
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
