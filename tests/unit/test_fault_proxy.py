"""The fault proxy, before an echo."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from rangefinder.cli.bench.fault_proxy import NO_FAULT, FaultProxy, LinkFault
from tests.kit.waiting import until

GIVE_UP_S = 20.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back, then say goodbye."""
    try:
        while content := await reader.read(1 << 16):
            writer.write(content)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with FaultProxy(target).listening() as proxy:
        yield proxy
    server.close()


class Caller:
    """One connection to a proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    @classmethod
    async def to(cls, proxy: FaultProxy) -> "Caller":
        host, port = proxy.address.split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def heard(self, count: int, within_s: float = GIVE_UP_S) -> bytes:
        async with asyncio.timeout(within_s):
            return await self._reader.readexactly(count)

    async def asked(self, content: bytes, within_s: float = GIVE_UP_S) -> tuple[bytes, float]:
        """What comes back, and after how many seconds."""
        began_s = time.monotonic()
        self.writer.write(content)
        return await self.heard(len(content), within_s), time.monotonic() - began_s

    async def is_cut(self) -> bool:
        """Whether the connection ends, reset or closed."""
        try:
            async with asyncio.timeout(GIVE_UP_S):
                return await self._reader.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.writer.close()


async def test_everything_passes_in_order(proxy: FaultProxy) -> None:
    """Without a fault, and with jitter, bytes come back as they went; more of them than are held."""
    caller = await Caller.to(proxy)
    content = bytes(range(256)) * 12_000
    for fault in (NO_FAULT, LinkFault(delay_s=0.01, jitter_s=0.01)):
        proxy.set_fault(fault)
        answer, _ = await caller.asked(content)
        assert content == answer
    caller.close()
    await until(lambda: not proxy.connection_count, within_s=GIVE_UP_S, what="the proxy lets go")


async def test_a_goodbye_passes_too(proxy: FaultProxy) -> None:
    """An end that has said all is passed on behind what it said, however late that is."""
    caller = await Caller.to(proxy)
    proxy.set_fault(LinkFault(delay_s=0.05))
    caller.writer.write(b"last words")
    caller.writer.write_eof()
    assert b"last words" == await caller.heard(10)
    assert await caller.is_cut()
    caller.close()


async def test_a_delay_counts_in_each_direction(proxy: FaultProxy) -> None:
    """A round trip takes both delays at least; switched off, the open connection is quick again."""
    caller = await Caller.to(proxy)
    proxy.set_fault(LinkFault(delay_s=0.3, jitter_s=0.05))
    _, took_s = await caller.asked(b"x")
    proxy.set_fault(NO_FAULT)
    quick_s = min([(await caller.asked(b"x"))[1] for _ in range(5)])
    assert took_s >= 0.5
    assert quick_s < 0.25
    caller.close()


async def test_a_cap_slows_what_is_large(proxy: FaultProxy) -> None:
    """50 kB at 100 kB/s take half a second at least."""
    caller = await Caller.to(proxy)
    proxy.set_fault(LinkFault(bytes_per_s=100_000.0))
    _, took_s = await caller.asked(bytes(50_000))
    assert took_s >= 0.5
    caller.close()


async def test_a_black_hole_accepts_and_says_nothing(proxy: FaultProxy) -> None:
    """Old and new connections stay open and hear nothing; once it is over they are cut."""
    old = await Caller.to(proxy)
    await old.asked(b"x")
    proxy.set_fault(LinkFault(is_black_hole=True))
    new = await Caller.to(proxy)
    for caller in (old, new):
        with pytest.raises(TimeoutError):
            await caller.asked(b"x", within_s=0.2)
        assert not caller.writer.transport.is_closing()
    proxy.set_fault(NO_FAULT)
    assert await old.is_cut()
    assert await new.is_cut()
    fresh = await Caller.to(proxy)
    assert b"y" == (await fresh.asked(b"y"))[0]
    for caller in (old, new, fresh):
        caller.close()


async def test_who_is_refused_is_cut_at_once(proxy: FaultProxy) -> None:
    """New connections are reset, open ones work on, until they are dropped."""
    old = await Caller.to(proxy)
    await old.asked(b"x")
    proxy.set_fault(LinkFault(is_refusing=True))
    refused = await Caller.to(proxy)
    assert await refused.is_cut()
    assert b"y" == (await old.asked(b"y"))[0]
    proxy.drop_connections()
    assert await old.is_cut()
    for caller in (old, refused):
        caller.close()
