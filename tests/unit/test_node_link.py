"""A link and a node that misbehaves, drains or vanishes: what becomes of each search."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rangefinder.edge.frames import Frames, listen
from rangefinder.errors import Internal, RangefinderError, ReplicaUnavailable
from rangefinder.internal.v1.node_pb2 import SearchAnswer, SearchRequest, SearchResponse
from router.batch import NodeAnswer
from router.health import SILENCE_S
from router.node_link import NodeConnection, NodeLink

GIVE_UP_S = 20.0


class Node(Frames):
    """A node that says what the test has it say."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.asked: asyncio.Queue[SearchRequest] = asyncio.Queue()
        self.is_over = asyncio.Event()
        self.greeting = [SearchResponse(ready=True)]

    def opened(self) -> None:
        content = b""
        for message in self.greeting:
            size = message.ByteSize().to_bytes(4, "little")
            content += size + message.SerializeToString()
        assert self._transport is not None
        self._transport.write(content)

    def message_received(self, content: bytes) -> None:
        self.asked.put_nowait(SearchRequest.FromString(content))

    def closed(self, why: str) -> None:
        self.is_over.set()

    def say(self, response: SearchResponse) -> None:
        self.send(response.SerializeToString())


@asynccontextmanager
async def linked(node: Node) -> AsyncIterator[NodeLink]:
    """A link with a connection to the node, as its run() would have it."""
    servers = await listen(lambda: node, "127.0.0.1", 0)
    port = servers[0].sockets[0].getsockname()[1]
    link = NodeLink("node-0", f"127.0.0.1:{port}")
    connection = NodeConnection(link)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, "127.0.0.1", port)
    async with asyncio.timeout(GIVE_UP_S):
        await connection.has_begun.wait()
    link._connection, link.is_open = connection, not connection.is_draining
    try:
        yield link
    finally:
        connection.abort()
        async with asyncio.timeout(GIVE_UP_S):
            await node.is_over.wait()
        for server in servers:
            server.close()
        await link._channel.close()


Outcome = NodeAnswer | RangefinderError


def outcome_of(link: NodeLink) -> "tuple[int, asyncio.Future[Outcome]]":
    """Search; the id, and what comes of it."""
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    return link.search(b"", ["s-0"], outcome.set_result), outcome


async def soon(outcome: "asyncio.Future[Outcome]") -> Outcome:
    async with asyncio.timeout(GIVE_UP_S):
        return await outcome


async def test_columns_that_do_not_fit_fail_their_search_alone() -> None:
    """It is INTERNAL at once; the connection and the other searches go on."""
    node = Node()
    async with linked(node) as link:
        bad_id, bad = outcome_of(link)
        good_id, good = outcome_of(link)
        node.say(SearchResponse(search_id=bad_id, answer=SearchAnswer(keys=b"abc", item_counts=[3])))
        assert isinstance(await soon(bad), Internal)
        node.say(SearchResponse(search_id=good_id, answer=SearchAnswer(item_counts=[0])))
        assert isinstance(await soon(good), NodeAnswer)


async def test_a_lost_connection_fails_every_search() -> None:
    """Also those after one whose failure is not taken well."""
    node = Node()
    async with linked(node) as link:

        def raise_it(outcome: Outcome) -> None:
            raise ValueError(outcome)

        link.search(b"", ["s-0"], raise_it)
        _, outcome = outcome_of(link)
        node.abort()
        assert isinstance(await soon(outcome), ReplicaUnavailable)


@pytest.mark.parametrize("how", ["answered", "cancelled"])
async def test_a_drained_connection_is_closed(how: str) -> None:
    """Once the last search on it is over, whichever way: the node waits for that."""
    node = Node()
    async with linked(node) as link:
        search_id, _ = outcome_of(link)
        node.say(SearchResponse(draining=True))
        while link.is_open:
            await asyncio.sleep(0.001)
        assert not node.is_over.is_set()
        if how == "answered":
            node.say(SearchResponse(search_id=search_id, answer=SearchAnswer(item_counts=[0])))
        else:
            link.cancel(search_id)
        async with asyncio.timeout(GIVE_UP_S):
            await node.is_over.wait()


async def test_a_node_that_drains_as_it_greets_is_not_used() -> None:
    """Both messages may come together."""
    node = Node()
    node.greeting.append(SearchResponse(draining=True))
    async with linked(node) as link:
        assert not link.is_usable


async def test_a_busy_node_is_not_silent() -> None:
    """Who searches for long is asked whether it is there, and is alive while it says so: no answer to
    a search, and others may be asked instead. Who owes nothing is not asked."""
    node, is_there = Node(), True
    async with linked(node) as link:

        async def answer_pings() -> None:
            while True:
                request = await node.asked.get()
                if request.ping and is_there:
                    node.say(SearchResponse(search_id=request.search_id, ready=True))

        async with asyncio.timeout(GIVE_UP_S):
            tasks = [asyncio.create_task(each) for each in (link.watch(), answer_pings())]
            await asyncio.sleep(2 * SILENCE_S)
            assert 0.0 == link.last_alive_s
            outcome_of(link)
            while link.last_alive_s == 0.0:
                await asyncio.sleep(0.001)
            first_s = link.last_alive_s
            while link.last_alive_s == first_s:
                await asyncio.sleep(0.001)
            assert 0.0 == link.last_heard_s
            is_there = False
            await asyncio.sleep(2 * SILENCE_S)
            assert time.monotonic() - link.last_alive_s >= SILENCE_S
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
