"""Real processes: the command line, and whole clusters, on free ports."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

START_S_MAX = 60.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rangefinder(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, with its output captured."""
    command = [sys.executable, "-m", "rangefinder.cli.main", *(str(each) for each in arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that `rangefinder up` runs."""

    address: str
    data_dir: Path
    supervisor: asyncio.subprocess.Process

    def pid(self, name: str) -> int:
        """Of a process such as node-0 or router-0."""
        return int((self.data_dir / "run" / f"{name}.pid").read_text())

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.pid(name), number)

    def output(self, name: str) -> str:
        return (self.data_dir / "output" / f"{name}.txt").read_text()


@asynccontextmanager
async def running_cluster(
    release: Path,
    data_dir: Path,
    *,
    node_count: int = 2,
    replica_count: int = 1,
    options: Sequence[str] = (),
) -> AsyncIterator[Cluster]:
    """Start a cluster, wait until it answers, stop it at the end. options: more of `up`."""
    port = free_port()
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rangefinder.cli.main", "up"),
        *("--release", str(release), "--data-dir", str(data_dir), "--port", str(port)),
        *("--nodes", str(node_count), "--replicas", str(replica_count), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert supervisor.stdout is not None and supervisor.stderr is not None
    try:
        async with asyncio.timeout(START_S_MAX):
            line = (await supervisor.stdout.readline()).decode().strip()
        if line != f"READY 127.0.0.1:{port}":
            raise AssertionError(f"{line!r}: {(await supervisor.stderr.read()).decode()}")
        yield Cluster(f"127.0.0.1:{port}", data_dir, supervisor)
    finally:
        with contextlib.suppress(ProcessLookupError):
            supervisor.send_signal(signal.SIGTERM)
        async with asyncio.timeout(START_S_MAX):
            await supervisor.communicate()
