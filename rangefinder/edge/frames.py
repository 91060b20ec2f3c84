"""Messages on a plain connection: the one path where a stream of gRPC costs more than what it carries.

    frame = size of the message in bytes (uint32, little-endian) | message

On one machine they travel by a Unix socket, which spares them TCP. It is found by the TCP port: its
abstract name is of the same network namespace (man 7 unix).

A connection is bounded on both sides. A reader that is paused holds its sender by TCP; a frame beyond
the limit, such as the greeting of another protocol, ends the connection. A peer that is gone without a
word is noticed by TCP within seconds (RFC 5482, and keep-alive probes). Why not gRPC: docs/adr/0011.
"""

import asyncio
import contextlib
import socket
import sys
from abc import abstractmethod
from collections.abc import Callable
from typing import cast

_SIZE_BYTES = 4

_OWN_HOSTS = ("127.0.0.1", "localhost")

# A peer that acknowledges nothing for so long is gone; one that is idle is asked after half of it.
_SILENCE_S = 6


class Frames(asyncio.Protocol):
    """One end of a connection. Subclasses say what becomes of a message and of the end."""

    def __init__(self, size_max: int) -> None:
        """size_max: bytes of the largest message that is accepted."""
        self._size_max = size_max
        self._received = bytearray()  # What is no whole frame yet, or waits while reading is paused.
        self._transport: asyncio.Transport | None = None
        self._is_reading = True
        self.is_congested = False  # The peer does not read as fast as is written.

    @abstractmethod
    def message_received(self, content: bytes) -> None:
        """Called for each message, in order."""

    @abstractmethod
    def closed(self, why: str) -> None:
        """Called once, when the connection is over."""

    def opened(self) -> None:
        """Called once, before any message."""

    def congestion_changed(self) -> None:
        """Called when `is_congested` has changed."""

    def send(self, content: bytes) -> None:
        """Send a message; where the connection is over, nothing."""
        if self._transport is not None:
            self._transport.write(len(content).to_bytes(_SIZE_BYTES, "little") + content)

    def close(self) -> None:
        """End the connection once what was sent has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once, whatever the peer does."""
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Deliver no more until resume(): TCP holds the peer back."""
        if self._is_reading and self._transport is not None and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        """Deliver what waits, then what comes."""
        if not self._is_reading and self._transport is not None:
            self._is_reading = True
            self._deliver()
            if self._is_reading and not self._transport.is_closing():
                self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _notice_silence(self._transport)
        self.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._received.clear()
        self.closed(str(exc) if exc else "the connection was closed")

    def pause_writing(self) -> None:
        self.is_congested = True
        self.congestion_changed()

    def resume_writing(self) -> None:
        self.is_congested = False
        self.congestion_changed()

    def data_received(self, data: bytes) -> None:
        # Nearly always exactly one frame: it is neither copied to the buffer nor cut out of it.
        if not self._received and len(data) >= _SIZE_BYTES and self._is_reading:
            size = int.from_bytes(data[:_SIZE_BYTES], "little")
            if len(data) == _SIZE_BYTES + size <= self._size_max:
                self.message_received(data[_SIZE_BYTES:])
                return
        self._received += data
        self._deliver()

    def _deliver(self) -> None:
        start = 0
        while self._is_reading and len(self._received) - start >= _SIZE_BYTES:
            size = int.from_bytes(self._received[start : start + _SIZE_BYTES], "little")
            if size > self._size_max:
                self.abort()
                break
            end = start + _SIZE_BYTES + size
            if end > len(self._received):
                break
            content = bytes(self._received[start + _SIZE_BYTES : end])
            start = end
            self.message_received(content)
        del self._received[:start]


async def listen(accept: Callable[[], Frames], host: str, port: int) -> list[asyncio.Server]:
    """Accept connections at host:port, the first server's; port 0 is a free one. Raises OSError."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(accept, host, port)]
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # Then there is TCP alone.
            own = _own_name(servers[0].sockets[0].getsockname()[1])
            servers.append(await loop.create_unix_server(accept, own))
    return servers


async def connect(end: Frames, host: str, port: int) -> None:
    """Open a connection. Raises OSError."""
    loop = asyncio.get_running_loop()
    if sys.platform == "linux" and host in _OWN_HOSTS:
        with contextlib.suppress(OSError):
            await loop.create_unix_connection(lambda: end, _own_name(port))
            return
    await loop.create_connection(lambda: end, host, port)


def _own_name(port: int) -> str:
    return f"\0rangefinder-frames-{port}"


def _notice_silence(transport: asyncio.Transport) -> None:
    """Have TCP end a connection whose peer is gone, be it idle or in the middle of something."""
    connection: socket.socket = transport.get_extra_info("socket")
    if connection.family == socket.AF_UNIX:
        return  # The kernel tells at once.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _SILENCE_S // 2),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", _SILENCE_S // 2),
        ("TCP_USER_TIMEOUT", _SILENCE_S * 1000),
    ):
        if number := getattr(socket, option, None):  # Not every system has all of them.
            connection.setsockopt(socket.IPPROTO_TCP, number, value)
