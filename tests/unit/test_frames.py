"""Frames over real connections: order, bounds, back-pressure, and what becomes of garbage."""

import asyncio
import random
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.edge.frames import Frames, connect, listen

GIVE_UP_S = 20.0
SIZE_MAX = 1 << 20


class Inbox(Frames):
    """An end that keeps what it gets."""

    def __init__(self, size_max: int = SIZE_MAX) -> None:
        super().__init__(size_max)
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.has_opened, self.is_over = asyncio.Event(), asyncio.Event()
        self.on_message: Callable[[bytes], None] = lambda _: None

    def opened(self) -> None:
        self.has_opened.set()

    def message_received(self, content: bytes) -> None:
        self.messages.put_nowait(content)
        self.on_message(content)

    def closed(self, why: str) -> None:
        assert why
        self.is_over.set()

    async def take(self, count: int) -> list[bytes]:
        async with asyncio.timeout(GIVE_UP_S):
            return [await self.messages.get() for _ in range(count)]


@pytest.fixture(params=["127.0.0.1", "127.0.0.2"], ids=["unix", "tcp"])
def host(request: pytest.FixtureRequest) -> str:
    """Who calls this very machine by another name than its own gets TCP."""
    if request.param == "127.0.0.2" and sys.platform != "linux":
        pytest.skip("only Linux has 127.0.0.2 as it is")
    name: str = request.param
    return name


@asynccontextmanager
async def connected(host: str, size_max: int = SIZE_MAX) -> AsyncIterator[tuple[Inbox, Inbox]]:
    """Two ends of a connection."""
    there, here = Inbox(size_max), Inbox()
    servers = await listen(lambda: there, host, 0)
    await connect(here, host, servers[0].sockets[0].getsockname()[1])
    try:
        async with asyncio.timeout(GIVE_UP_S):
            await there.has_opened.wait()
        yield here, there
    finally:
        here.abort()
        there.abort()
        async with asyncio.timeout(GIVE_UP_S):
            await asyncio.gather(here.is_over.wait(), there.is_over.wait())
        for server in servers:
            server.close()
            await server.wait_closed()


async def test_messages_arrive_whole_and_in_order(host: str) -> None:
    """Empty ones, small ones and the largest allowed, in both directions at once."""
    sizes = [0, 1, 600, SIZE_MAX, 0, 3, 70_000] * 3
    messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    async with connected(host) as (here, there):
        for message in messages:
            here.send(message)
            there.send(message)
        assert messages == await there.take(len(messages))
        assert messages == await here.take(len(messages))


@given(st.lists(st.binary(max_size=40), max_size=20), st.randoms(use_true_random=False))
def test_frames_may_be_cut_anywhere(messages: list[bytes], dice: random.Random) -> None:
    """However the bytes arrive, the messages are those that were sent."""
    content = b"".join(len(each).to_bytes(4, "little") + each for each in messages)
    end = Inbox()
    while content:
        size = dice.randint(1, len(content))
        end.data_received(content[:size])
        content = content[size:]
    assert messages == [end.messages.get_nowait() for _ in range(end.messages.qsize())]


async def test_a_frame_beyond_the_limit_ends_the_connection(host: str) -> None:
    """Also what is no frame at all, such as another protocol's greeting."""
    for garbage in (b"x" * 65, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        async with connected(host, size_max=64) as (here, there):
            here.send(b"fits")
            assert [b"fits"] == await there.take(1)
            if garbage.startswith(b"x"):
                here.send(garbage)
            else:
                assert here._transport is not None
                here._transport.write(garbage)
            async with asyncio.timeout(GIVE_UP_S):
                await here.is_over.wait()
            assert there.messages.empty()


async def test_a_paused_reader_holds_its_sender(host: str) -> None:
    """No message is delivered while paused, memory stays bounded, none is lost."""
    async with connected(host) as (here, there):
        there.on_message = lambda _: there.pause()
        message, sent = b"m" * 50_000, 0
        while not here.is_congested:
            here.send(message)
            sent += 1
            await asyncio.sleep(0)
        assert 1 == there.messages.qsize()
        assert len(there._received) < 20 * len(message)
        there.on_message = lambda _: None
        there.resume()
        assert [message] * sent == await there.take(sent)
        assert not here.is_congested


async def test_pausing_in_the_middle_of_a_chunk_keeps_the_rest(host: str) -> None:
    """Of messages that arrive together, those after the pause wait for resume()."""
    async with connected(host) as (here, there):
        there.on_message = lambda content: there.pause() if content == b"2" else None
        assert here._transport is not None
        here._transport.write(b"".join((1).to_bytes(4, "little") + b"%d" % n for n in range(5)))
        assert [b"0", b"1", b"2"] == await there.take(3)
        assert there.messages.empty()
        there.resume()
        assert [b"3", b"4"] == await there.take(2)


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_the_end_is_told_once_to_both(host: str, end: str) -> None:
    """What is sent after it goes nowhere and harms nobody."""
    async with connected(host) as (here, there):
        getattr(here, end)()
        async with asyncio.timeout(GIVE_UP_S):
            await asyncio.gather(here.is_over.wait(), there.is_over.wait())
        here.send(b"nobody")
        here.pause()
        here.resume()


async def test_on_one_machine_it_is_a_unix_socket() -> None:
    """Where the host is this machine, by its own name; TCP where it has another."""
    for host, family in (("127.0.0.1", socket.AF_UNIX), ("127.0.0.2", socket.AF_INET)):
        if sys.platform == "linux":
            async with connected(host) as (here, _):
                assert here._transport is not None
                assert family == here._transport.get_extra_info("socket").family


async def test_a_port_that_nobody_has_is_refused(host: str) -> None:
    """As by TCP alone."""
    with pytest.raises(ConnectionRefusedError):
        await connect(Inbox(), host, 1)
