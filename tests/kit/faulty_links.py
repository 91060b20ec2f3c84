"""A router whose links to the nodes can be slowed, cut and silenced, each for itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rangefinder.cli.bench.fault_proxy import LinkFault
from rangefinder.cli.bench.links import Links, links_to
from rangefinder.map_file import write_map
from router.config import RouterConfig
from tests.kit.processes import Cluster, free_port
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
async def faulty_links(cluster: Cluster, folder: Path) -> AsyncIterator[FaultyLinks]:
    """A second router of a cluster, behind proxies, until the block ends."""
    config = RouterConfig(
        name="router-behind-proxies",
        listen=f"127.0.0.1:{free_port()}",
        metrics=f"127.0.0.1:{free_port()}",
        map_file=folder / "map.json",
    )
    assert config.metrics is not None
    async with links_to(cluster.data_dir) as links:
        write_map(config.map_file, links.cluster_map)
        async with running_router(config, folder):
            yield FaultyLinks(config.listen, config.metrics, links)
