"""A router of several workers beside the one of a cluster, for tests that stop or kill it."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from rangefinder.documents import from_yaml, to_yaml
from router.config import RouterConfig
from tests.kit.processes import START_S_MAX, Cluster, free_port
from tests.kit.remains import descendants
from tests.kit.waiting import until


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRouter:
    """The process that watches over the workers."""

    process: asyncio.subprocess.Process
    config: RouterConfig
    output: Path

    def workers(self) -> dict[str, psutil.Process]:
        """The workers by their names."""
        found = {}
        for child in descendants(self.process.pid):
            with contextlib.suppress(psutil.Error, ValueError):
                words = child.cmdline()
                found[words[words.index("--name") + 1]] = child
        return found


def own_config(cluster: Cluster, **settings: object) -> RouterConfig:
    """The configuration of the cluster's router, at ports of its own, with two workers."""
    path = cluster.data_dir / "config" / "router-0.yaml"
    config = from_yaml(path.read_text(), RouterConfig, str(path))
    own = {"name": "own", "listen": f"127.0.0.1:{free_port()}", "workers": 2}
    own["metrics"] = f"127.0.0.1:{free_port()}"
    return replace(config, **(own | settings))  # type: ignore[arg-type]


def command(config: RouterConfig, folder: Path) -> list[str]:
    """What starts a router of this configuration."""
    path = folder / f"{config.name}.yaml"
    path.write_text(to_yaml(config))
    return [sys.executable, "-m", "router", "--config", str(path)]


@asynccontextmanager
async def own_router(cluster: Cluster, folder: Path, **settings: object) -> AsyncIterator[OwnRouter]:
    """Start it, wait until all workers are ready, stop it at the end. It must leave no traceback."""
    config, output = own_config(cluster, **settings), folder / "own.txt"
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(*command(config, folder), "--lifeline"),
            stdin=asyncio.subprocess.PIPE,
            stdout=file,
            stderr=file,
        )
    try:
        await until(
            lambda: f"workers={config.workers}" in _ready_line(output),
            within_s=START_S_MAX,
            what=f"all workers are ready: {output.read_text()}",
        )
        yield OwnRouter(process=process, config=config, output=output)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(START_S_MAX):
            await process.wait()
    assert "Traceback" not in output.read_text()


def _ready_line(output: Path) -> str:
    lines = output.read_text().splitlines()
    return next((line for line in lines if "router_ready" in line and "workers=" in line), "")
