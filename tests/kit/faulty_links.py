"""A router whose links to the nodes can be slowed, cut and silenced, each for itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rangefinder.cli.bench.fault_proxy import LinkFault
from rangefinder.cli.bench.links import Links, behind_proxies, links_to
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
    async with links_to(read_map(map_file)) as links, running_router(config, folder):
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
