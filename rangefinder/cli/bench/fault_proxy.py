"""A TCP proxy for one link between processes, with faults that can be switched while it runs.

It knows nothing of what passes through: whatever speaks TCP sees a slow, silent, absent or torn line.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_CHUNK_BYTES = 1 << 16
_HELD_BYTES_MAX = 1 << 20  # In each direction; then the sender is not read until some has left.


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFault:
    """What a link does to what passes. Nothing, by default."""

    delay_s: float = 0.0  # In each direction: a round trip takes twice as long more.
    jitter_s: float = 0.0  # More or less, evenly spread; the order stays.
    bytes_per_s: float = 0.0  # In each direction; 0: no cap.
    is_black_hole: bool = False  # Connections are accepted, and everything is swallowed.
    is_refusing: bool = False  # Connections are reset as soon as they are made.


NO_FAULT = LinkFault()


@dataclass(slots=True)
class _Direction:
    """Bytes on their way from one end to the other."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    held: deque[tuple[float, bytes]] = field(default_factory=deque)  # When they leave.
    held_bytes: int = 0
    leaves_s: float = 0.0  # When the last of them does.
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    is_ended: bool = False

    def hold(self, content: bytes, delay_s: float, took_s: float) -> None:
        self.leaves_s = max(self.leaves_s, time.monotonic() + delay_s) + took_s
        self.held.append((self.leaves_s, content))
        self.held_bytes += len(content)
        self.changed.set()

    async def wait_changed(self) -> None:
        self.changed.clear()
        await self.changed.wait()


@dataclass(slots=True, eq=False)
class _Connection:
    writers: tuple[asyncio.StreamWriter, ...]
    has_lost_bytes: bool = False

    def reset(self) -> None:
        """End it without a goodbye."""
        for writer in self.writers:
            writer.transport.abort()


class FaultProxy:
    """Listens on a port of its own, and passes on what comes there."""

    def __init__(self, target: str, seed: int = 0) -> None:
        host, port = target.rsplit(":", 1)
        self._host, self._port = host, int(port)
        self._random = random.Random(seed)
        self._connections: set[_Connection] = set()
        self._fault, self.address = NO_FAULT, ""

    @property
    def fault(self) -> LinkFault:
        return self._fault

    def set_fault(self, fault: LinkFault) -> None:
        """From now on, for open connections too.

        One that a black hole has swallowed bytes of is reset when that is over: it could only be torn.
        """
        self._fault = fault
        if not fault.is_black_hole:
            for connection in [each for each in self._connections if each.has_lost_bytes]:
                connection.reset()

    def drop_connections(self) -> None:
        """Reset whatever is open."""
        for connection in list(self._connections):
            connection.reset()

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    @asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator["FaultProxy"]:
        """Serve until the block ends; then everything is reset."""
        async with asyncio.TaskGroup() as group:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                group.create_task(self._serve(reader, writer), name="fault-proxy")

            server = await asyncio.start_server(serve, host, port)
            self.address = f"{host}:{server.sockets[0].getsockname()[1]}"
            try:
                yield self
            finally:
                server.close()
                self.set_fault(LinkFault(is_refusing=True))
                self.drop_connections()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection((writer,))
        self._connections.add(connection)
        try:
            if self._fault.is_refusing:
                return
            there = await asyncio.open_connection(self._host, self._port)
            connection.writers = (writer, there[1])
            await self._pass_on(connection, _Direction(reader, there[1]), _Direction(there[0], writer))
        except OSError:
            pass  # Whoever is at fault, the other end sees it too.
        finally:
            connection.reset()
            self._connections.discard(connection)

    async def _pass_on(self, connection: _Connection, *directions: _Direction) -> None:
        """Until both directions have ended, or one has failed."""
        works = [
            asyncio.create_task(work, name="fault-proxy-direction")
            for direction in directions
            for work in (self._read(connection, direction), _write(direction))
        ]
        try:
            await asyncio.gather(*works)
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)

    async def _read(self, connection: _Connection, direction: _Direction) -> None:
        while content := await direction.reader.read(_CHUNK_BYTES):
            fault = self._fault
            if fault.is_black_hole:
                connection.has_lost_bytes = True
                continue
            delay_s = fault.delay_s + fault.jitter_s * self._random.uniform(-1.0, 1.0)
            took_s = len(content) / fault.bytes_per_s if fault.bytes_per_s else 0.0
            direction.hold(content, delay_s, took_s)
            while direction.held_bytes > _HELD_BYTES_MAX:
                await direction.wait_changed()
        direction.is_ended = True
        direction.changed.set()


async def _write(direction: _Direction) -> None:
    while not (direction.is_ended and not direction.held):
        if not direction.held:
            await direction.wait_changed()
            continue
        leaves_s, content = direction.held[0]
        left_s = leaves_s - time.monotonic()
        if left_s > 0:
            await asyncio.sleep(left_s)
        direction.writer.write(content)
        await direction.writer.drain()
        direction.held.popleft()
        direction.held_bytes -= len(content)
        direction.changed.set()
    direction.writer.write_eof()
