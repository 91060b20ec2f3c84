"""How a router starts a worker, and what it hears of it: a socket is the worker's standard input."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Sequence

# A worker says a word each second. One that hangs for so long is killed: the kernel goes on giving it
# connections. Less could be a machine that has much to do.
SILENT_S_MAX = 10.0

# Silence is counted in these: a watcher that was suspended itself must not take it for the worker's.
_TICK_S = 1.0


class WorkerLauncher:
    """A worker, started again under the same name; its output goes where ours goes."""

    def __init__(
        self,
        name: str,
        address: str,
        arguments: Sequence[str],
        on_silent: Callable[[str], None],
    ) -> None:
        """arguments: those of the router itself; address: host:port that all workers share.

        on_silent: told the name of a worker that was killed because it hung.
        """
        self.name, self._on_silent = name, on_silent
        self.metrics = ""  # host:port, once it has STARTED.
        self.started, self.ready = asyncio.Event(), asyncio.Event()
        self._arguments = (*arguments, "--name", name, "--listen", address, "--lifeline")
        self._hearing: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> asyncio.subprocess.Process:
        ours, theirs = socket.socketpair()
        with theirs:
            self._hearing = asyncio.create_task(self._hear(ours), name=f"hear-{self.name}")
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "router.worker", *self._arguments),
                stdin=theirs.fileno(),
                start_new_session=True,
            )
            return self._process

    def record(self, pid: int | None) -> None:
        if pid is None:
            self.metrics = ""
            self.ready.clear()

    def last_words(self, how: str) -> str:
        """It has said them where we would."""
        return how

    async def _hear(self, connection: socket.socket) -> None:
        """Note what the worker says, until it is gone; end it where it says nothing any more."""
        reader, writer = await asyncio.open_connection(sock=connection)
        silent_s = 0.0
        try:
            with contextlib.suppress(ConnectionError):
                while (line := await _next_line(reader)) != b"":
                    silent_s = 0.0 if line else silent_s + _TICK_S
                    if line:
                        self._note(line.decode().split())
                    elif silent_s >= SILENT_S_MAX and self.ready.is_set():
                        silent_s = 0.0
                        self._kill()
        finally:
            writer.close()

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._on_silent(self.name)
            self._process.kill()

    def _note(self, words: list[str]) -> None:
        match words:
            case ["STARTED", *metrics]:
                self.metrics = metrics[0] if metrics else ""
                self.started.set()
            case ["READY"]:
                self.ready.set()


async def _next_line(reader: asyncio.StreamReader) -> bytes | None:
    """The next line; None: there was none for a tick."""
    try:
        async with asyncio.timeout(_TICK_S):
            return await reader.readline()
    except TimeoutError:
        return None
