"""Nodes without a supervisor, for tests that restart them at once, or under another map."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rangefinder.cluster_map import Node
from rangefinder.documents import to_yaml
from rangefinder.map_file import map_of_release, write_map
from rangefinder.release import read_manifest
from shard_server.config import NodeConfig
from tests.kit.processes import START_S_MAX, free_port
from tests.kit.waiting import until


@dataclass(slots=True)
class OwnNodes:
    """Nodes of one release, by name."""

    folder: Path
    map_file: Path
    configs: dict[str, NodeConfig]
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    starts: int = 0

    async def start(self, name: str) -> None:
        """Start a node, and wait until it is READY."""
        path = self.folder / f"{name}.yaml"
        path.write_text(to_yaml(self.configs[name]))
        self.starts += 1
        output = self.folder / f"{name}-start-{self.starts}.txt"
        with output.open("wb") as file:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "shard_server", "--config", str(path)), stdout=file, stderr=file
            )
        await until(
            lambda: "node_ready" in output.read_text(),
            within_s=START_S_MAX,
            what=f"{name} is ready: {output}",
        )

    async def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal that ends a node, and wait until it has."""
        process = self.processes.pop(name)
        process.send_signal(number)
        async with asyncio.timeout(START_S_MAX):
            await process.wait()

    def give_map(self, name: str, map_file: Path) -> None:
        """Have a node read another map from its next start on."""
        self.configs[name] = replace(self.configs[name], map_file=map_file)

    def outputs(self) -> str:
        """What all of them have said."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("node-*.txt")))


@asynccontextmanager
async def own_nodes(
    release: Path, folder: Path, *, node_count: int, replica_count: int
) -> AsyncIterator[OwnNodes]:
    """Start nodes, and end those that run at the end. They must leave no traceback."""
    names = [f"node-{number}" for number in range(node_count)]
    at = tuple(Node(name=name, address=f"127.0.0.1:{free_port()}") for name in names)
    map_file, manifest = folder / "map.json", read_manifest(release)
    write_map(map_file, map_of_release(manifest, at, replica_count, cluster="own", epoch=1))
    configs = {
        node.name: NodeConfig(
            name=node.name,
            listen=node.address,
            search_port=free_port(),
            map_file=map_file,
            release=release,
            search_threads=1,
        )
        for node in at
    }
    nodes = OwnNodes(folder, map_file, configs)
    try:
        await asyncio.gather(*(nodes.start(name) for name in names))
        yield nodes
    finally:
        for name in list(nodes.processes):
            await nodes.stop(name)
    assert "Traceback" not in nodes.outputs()
