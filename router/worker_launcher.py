"""How a router starts a worker, and what it hears of it: a socket is the worker's standard input."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence


class WorkerLauncher:
    """A worker, started again under the same name; its output goes where ours goes."""

    def __init__(self, name: str, address: str, arguments: Sequence[str]) -> None:
        """arguments: those of the router itself; address: host:port that all workers share."""
        self.name = name
        self.metrics = ""  # host:port, once it has STARTED.
        self.started, self.ready = asyncio.Event(), asyncio.Event()
        self._arguments = (*arguments, "--name", name, "--listen", address, "--lifeline")
        self._hearing: asyncio.Task[None] | None = None

    async def start(self) -> asyncio.subprocess.Process:
        ours, theirs = socket.socketpair()
        with theirs:
            self._hearing = asyncio.create_task(self._hear(ours), name=f"hear-{self.name}")
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "router.worker", *self._arguments),
                stdin=theirs.fileno(),
                start_new_session=True,
            )

    def record(self, pid: int | None) -> None:
        if pid is None:
            self.metrics = ""
            self.ready.clear()

    def last_words(self, how: str) -> str:
        """It has said them where we would."""
        return how

    async def _hear(self, connection: socket.socket) -> None:
        """Note what the worker says, until it is gone."""
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            with contextlib.suppress(ConnectionError):
                while line := await reader.readline():
                    self._note(line.decode().split())
        finally:
            writer.close()

    def _note(self, words: list[str]) -> None:
        match words:
            case ["STARTED", *metrics]:
                self.metrics = metrics[0] if metrics else ""
                self.started.set()
            case ["READY"]:
                self.ready.set()
