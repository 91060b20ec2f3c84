"""What `make demo` stands on: commands that are shown and run, a cluster, waiting for its changes."""

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rangefinder import RangefinderError
from rangefinder.cli.output import print_line

ROOT = Path(__file__).resolve().parent.parent
NODE_COUNT = 2

# As the installed command does, from this checkout.
_COMMAND = (sys.executable, "-m", "rangefinder.cli.main")
_WAIT_S_MAX = 60.0


class DemoFailed(Exception):
    """A step did not do what it should."""


def tell(text: str) -> None:
    """A heading."""
    print_line(f"\n== {text}")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Stage:
    """A folder for all that is made, and the port of the cluster in it."""

    folder: Path
    port: int

    @property
    def release(self) -> Path:
        return self.folder / "release"

    @property
    def cluster_folder(self) -> Path:
        return self.folder / "cluster"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def run(self, *arguments: object) -> None:
        """Run a command, shown first, to its end. Raises DemoFailed."""
        words = [_shown(each) for each in arguments]
        print_line(f"$ rangefinder {shlex.join(words)}")
        sys.stdout.flush()
        process = await asyncio.create_subprocess_exec(*_COMMAND, *words, cwd=ROOT)
        if await process.wait():
            raise DemoFailed(f"`rangefinder {words[0]}` failed")

    async def ask(self, command: str, *arguments: object) -> None:
        """Run a command that asks the cluster."""
        await self.run(command, "--address", self.address, *arguments)

    @asynccontextmanager
    async def cluster(self) -> AsyncIterator[None]:
        """`rangefinder up` until the block ends. Raises DemoFailed."""
        words = (
            *("up", "--release", _shown(self.release), "--data-dir", _shown(self.cluster_folder)),
            *("--port", str(self.port), "--nodes", str(NODE_COUNT)),
        )
        print_line(f"$ rangefinder {shlex.join(words)} &")
        process = await asyncio.create_subprocess_exec(
            *_COMMAND, *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            line = (await process.stdout.readline()).decode().strip()
            if not line:
                raise DemoFailed("`rangefinder up` did not come up")
            print_line(line)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await process.wait()

    def kill(self, name: str) -> None:
        """End a process of the cluster as a crash would, and say so."""
        pid = int((self.cluster_folder / "run" / f"{name}.pid").read_text(encoding="utf-8"))
        tell(f"{name} is killed: kill -9 {pid}")
        os.kill(pid, signal.SIGKILL)

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        """Ask until it holds. Raises DemoFailed where that takes too long."""
        ends_s = time.monotonic() + _WAIT_S_MAX
        while time.monotonic() < ends_s:
            with contextlib.suppress(RangefinderError):
                if await holds():
                    return
            await asyncio.sleep(0.1)
        outputs = _shown(self.cluster_folder / "output")
        raise DemoFailed(f"not within {_WAIT_S_MAX:g} s: {what}: see {outputs}")


def free_port() -> int:
    """The default port where it is free, else another."""
    for port in (7000, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DemoFailed("no port is free")


def _shown(argument: object) -> str:
    """A word of a command; paths in the checkout as a person in it would write them."""
    if isinstance(argument, Path) and argument.is_relative_to(ROOT):
        return str(argument.relative_to(ROOT))
    return str(argument)
