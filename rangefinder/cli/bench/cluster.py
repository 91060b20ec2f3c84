"""The cluster that is measured: one of our own, or one that runs already."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rangefinder.cli.bench.router_metrics import RouterMetrics
from rangefinder.client import Client
from rangefinder.documents import from_yaml
from rangefinder.errors import InputRefused, RangefinderError, ReplicaUnavailable
from rangefinder.storage import read_text
from rangefinder.supervised import ProcessFailed
from rangefinder.telemetry.process import cpu_seconds
from router.config import RouterConfig

# As many as `up` itself waits for a process that does not start.
_START_S_MAX = 300.0
_STOP_S_MAX = 60.0

_ASKED_S_MAX, _ASKED_AGAIN_S = 2.0, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOrder:
    """A cluster to be started."""

    release: Path
    node_count: int
    replica_count: int
    router_workers: int


@dataclass(frozen=True, slots=True)
class CpuSeconds:
    """CPU time of the processes that answer a search."""

    routers: float
    nodes: float

    def since(self, before: "CpuSeconds") -> "CpuSeconds":
        return CpuSeconds(self.routers - before.routers, self.nodes - before.nodes)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where it answers, and the folder of its `up` where that is on this machine."""

    address: str
    data_dir: Path | None
    router: str = "router-0"

    def pid(self, name: str) -> int:
        """Of a process such as node-0."""
        assert self.data_dir is not None
        return int((self.data_dir / "run" / f"{name}.pid").read_text(encoding="utf-8"))

    def router_config(self) -> RouterConfig:
        """Of the router at the address."""
        assert self.data_dir is not None
        path = self.data_dir / "config" / f"{self.router}.yaml"
        return from_yaml(read_text(path), RouterConfig, str(path))

    def metrics(self) -> RouterMetrics | None:
        """Of the router; None where its configuration is not known, or has none."""
        if self.data_dir is None or (address := self.router_config().metrics) is None:
            return None
        return RouterMetrics(address)

    async def until_well(self) -> None:
        """Return once the router uses every node. Raises ReplicaUnavailable where it does not."""
        async with Client(self.address, deadline_s=_ASKED_S_MAX) as client:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_START_S_MAX):
                    while not await _is_well(client):
                        await asyncio.sleep(_ASKED_AGAIN_S)
                    return
        raise ReplicaUnavailable(f"{self.address}: a node is not used again")

    def cpu(self) -> CpuSeconds | None:
        """Until now; None where its processes are not known."""
        if self.data_dir is None:
            return None
        return CpuSeconds(self._cpu_of("router-*"), self._cpu_of("node-*"))

    def _cpu_of(self, pattern: str) -> float:
        assert self.data_dir is not None
        spent_s = 0.0
        for path in (self.data_dir / "run").glob(f"{pattern}.pid"):
            with contextlib.suppress(OSError, ValueError):  # It is being started again.
                spent_s += cpu_seconds(int(path.read_text(encoding="utf-8")))
        return spent_s

    async def cpu_between(self, begin_s: float, end_s: float) -> CpuSeconds | None:
        """CPU time between two moments of the monotonic clock, both still to come."""
        await asyncio.sleep(begin_s - time.monotonic())
        before = self.cpu()
        await asyncio.sleep(end_s - time.monotonic())
        after = self.cpu()
        return after.since(before) if before is not None and after is not None else None


def cluster_of(address: str, data_dir: Path | None) -> Cluster:
    """A cluster that runs already. Raises InputRefused where the folder is not that of an `up`."""
    if data_dir is not None and not any((data_dir / "run").glob("router-*.pid")):
        raise InputRefused(f"--data-dir {data_dir}: no cluster of `rangefinder up` runs there")
    return Cluster(address, data_dir)


async def _is_well(client: Client) -> bool:
    with contextlib.suppress(RangefinderError):
        return all(each.healthy for each in (await client.cluster_status()).replicas)
    return False


@asynccontextmanager
async def started(order: ClusterOrder, folder: Path) -> AsyncIterator[Cluster]:
    """Real processes by `rangefinder up`, until the block ends. Raises ProcessFailed."""
    with TemporaryDirectory(prefix="cluster-", dir=folder) as work:
        port = free_port()
        supervisor = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rangefinder.cli.main", "up", "--port", str(port)),
            *("--release", str(order.release), "--data-dir", work),
            *("--nodes", str(order.node_count), "--replicas", str(order.replica_count)),
            *("--router-workers", str(order.router_workers)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which stops it.
        )
        try:
            await _until_ready(supervisor, port)
            yield Cluster(f"127.0.0.1:{port}", Path(work))
        finally:
            await _stop(supervisor)


async def _until_ready(supervisor: asyncio.subprocess.Process, port: int) -> None:
    assert supervisor.stdout is not None and supervisor.stderr is not None
    line = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_S_MAX):
            line = await supervisor.stdout.readline()
    if line.decode().strip() != f"READY 127.0.0.1:{port}":
        with contextlib.suppress(ProcessLookupError):
            supervisor.send_signal(signal.SIGTERM)
        said = (await supervisor.stderr.read()).decode().strip().splitlines()
        why = said[-1].removeprefix("rangefinder: error: ") if said else "without a word"
        raise ProcessFailed(f"the cluster did not start: {why}")


async def _stop(supervisor: asyncio.subprocess.Process) -> None:
    """Ask it to end, as it does with all of its processes."""
    with contextlib.suppress(ProcessLookupError):
        supervisor.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_S_MAX):
            await supervisor.communicate()
    except TimeoutError:
        os.killpg(supervisor.pid, signal.SIGKILL)
        await supervisor.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
