"""The one connection of this router worker to a node: kept open, tagged, several searches in flight.

A broken connection fails what was in flight at once and is opened again with jitter. A search that
nobody wants any more is dropped by a message.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from rangefinder.edge.channel import INTERNAL_BYTES_MAX, open_channel
from rangefinder.edge.frames import Frames, connect
from rangefinder.edge.status import error_with_reason, translated
from rangefinder.errors import Internal, NotReady, RangefinderError, ReplicaUnavailable
from rangefinder.internal.v1 import node_pb2 as wire
from rangefinder.internal.v1.node_pb2_grpc import NodeServiceStub
from rangefinder.internal.v1.packed_pb2 import PackedSearchRequest
from rangefinder.telemetry.logs import get_log
from router.batch import NodeAnswer
from router.batch_message import answer_of
from router.health import SILENCE_S, NodeHealth
from router.pace import NodePace

if TYPE_CHECKING:  # It stands in the type stubs alone.
    from rangefinder.internal.v1.node_pb2_grpc import NodeServiceAsyncStub

OnAnswer = Callable[[NodeAnswer | RangefinderError], None]

_RECONNECT_S_MIN, _RECONNECT_S_MAX = 0.05, 1.0
_GREETING_S_MAX = 1.0
_PROBE_S_MAX = 0.5

# Twice in the time after which a node that owes an answer counts as silent.
_WATCH_S = SILENCE_S / 2


class NodeLink:
    """A node as this router worker sees it."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.health, self.pace = name, NodeHealth(), NodePace(time.monotonic())
        self.last_heard_s = 0.0  # Of its searches.
        self.last_alive_s = 0.0  # Whatever it said: who answers pings may yet be too slow to wait for.
        self._host = address.rsplit(":", 1)[0]
        self._channel = open_channel(address, INTERNAL_BYTES_MAX)
        self.stub: NodeServiceAsyncStub = NodeServiceStub(self._channel)
        self._waiting: dict[int, OnAnswer] = {}
        self._pings: dict[int, asyncio.Future[bool]] = {}
        self._next_id = 1
        self._connection: NodeConnection | None = None
        self.is_open = False  # The node takes searches on the connection.
        self._log = get_log()

    @property
    def is_usable(self) -> bool:
        """Whether searches should be sent here."""
        return self.is_open and not self.health.is_ejected

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def search(self, batch: bytes, shards: Sequence[str], on_answer: OnAnswer) -> int:
        """Ask for a SearchBatch in some shards, where usable; returns the id to cancel by."""
        assert self._connection is not None, "it is usable"
        search_id = self._new_id()
        self._waiting[search_id] = on_answer
        request = PackedSearchRequest(search_id=search_id, batch=batch, shards=shards)
        self._connection.send(request.SerializeToString())
        return search_id

    def cancel(self, search_id: int) -> None:
        """Drop a search that nobody waits for."""
        if self._waiting.pop(search_id, None) is not None and self._connection is not None:
            cancel = wire.SearchRequest(search_id=search_id, cancel=True)
            self._connection.send(cancel.SerializeToString())
            self._close_if_drained(self._connection)

    async def run(self) -> None:
        """Keep the connection open until cancelled."""
        delay_s = _RECONNECT_S_MIN
        try:
            while True:
                opened_s = time.monotonic()
                await self._connect_once()
                was_long = time.monotonic() - opened_s > _RECONNECT_S_MAX
                delay_s = _RECONNECT_S_MIN if was_long else min(delay_s * 2, _RECONNECT_S_MAX)
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
        finally:
            await self._channel.close()

    async def watch(self) -> None:
        """Notice a node that is silent, and probe one that is ejected, until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_S)
            self.health.look(time.monotonic())
            self._ask_whether_it_is_there(time.monotonic())
            if not (self.is_open and self.health.is_probe_due(time.monotonic())):
                continue
            connection = self._connection
            succeeded = await self._ping()
            self.health.record_probe(time.monotonic(), succeeded=succeeded)
            if succeeded:
                self._log.info("node_taken_back", node=self.name)
            elif connection is not None:
                connection.abort()  # A new one finds a node whose connection hangs.

    def received(self, response: wire.SearchResponse) -> None:
        """What the node says."""
        self.last_alive_s = time.monotonic()
        if not response.ready:
            self.last_heard_s = self.last_alive_s
        self.health.record_heard()
        if response.draining:
            self.is_open = False
            self._log.info("node_draining", node=self.name)
        elif response.ready:
            self._answer_ping(response.search_id)
        elif on_answer := self._waiting.pop(response.search_id, None):
            on_answer(self._answer_of(response))
        if self._connection is not None:
            self._close_if_drained(self._connection)

    def _close_if_drained(self, connection: "NodeConnection") -> None:
        """A node that drains ends once its routers have gone."""
        if not (self.is_open or self._waiting):
            connection.close()

    def lost(self, why: str) -> None:
        """The connection is over."""
        self.is_open, self._connection = False, None
        waiting, self._waiting = self._waiting, {}
        if waiting:
            self._log.warning("node_lost", node=self.name, searches=len(waiting), why=why)
        for on_answer in waiting.values():
            try:
                on_answer(ReplicaUnavailable(f"node {self.name}: {why}"))
            except Exception:  # A bug, but of one search alone.
                self._log.exception("search_not_failed", node=self.name)

    async def _connect_once(self) -> None:
        """Open a connection and use it until it ends."""
        try:
            connection = await self._connected()
        except (RangefinderError, OSError) as error:
            self._log.debug("node_not_connected", node=self.name, why=str(error))
            return
        except Exception:  # A bug, but one of this node alone.
            self._log.exception("connection_failed", node=self.name)
            return
        self._connection, self.is_open = connection, True
        self.health.record_ready(time.monotonic())
        self._log.info("node_connected", node=self.name)
        try:
            await connection.is_over.wait()
        finally:
            connection.abort()

    async def _connected(self) -> "NodeConnection":
        """A connection that the node greeted: it is READY. One that is frozen says nothing."""
        with translated():
            status = await self.stub.GetNodeStatus(wire.GetNodeStatusRequest(), timeout=_GREETING_S_MAX)
        connection = NodeConnection(self)
        try:
            async with asyncio.timeout(_GREETING_S_MAX):
                await connect(connection, self._host, status.search_port)
                await connection.has_begun.wait()
        except TimeoutError:
            connection.abort()
            raise ReplicaUnavailable(f"node {self.name} does not answer") from None
        if connection.is_over.is_set() or connection.is_draining:
            connection.abort()
            raise NotReady(f"node {self.name} is not ready")
        return connection

    def _ask_whether_it_is_there(self, now_s: float) -> None:
        """A node that owes an answer may be busy with it: who answers a ping is alive."""
        is_quiet = now_s - self.last_alive_s >= _WATCH_S
        if self._connection is not None and self._waiting and is_quiet:
            self._send_ping(self._connection)

    def _send_ping(self, connection: "NodeConnection") -> int:
        ping_id = self._new_id()
        connection.send(wire.SearchRequest(search_id=ping_id, ping=True).SerializeToString())
        return ping_id

    async def _ping(self) -> bool:
        """Whether somebody is there who reads this connection."""
        assert self._connection is not None, "it is open"
        answered = asyncio.get_running_loop().create_future()
        ping_id = self._send_ping(self._connection)
        self._pings[ping_id] = answered
        await asyncio.wait((answered,), timeout=_PROBE_S_MAX)
        del self._pings[ping_id]
        return answered.done()

    def _answer_ping(self, ping_id: int) -> None:
        if (answered := self._pings.get(ping_id)) and not answered.done():
            answered.set_result(True)

    def _new_id(self) -> int:
        search_id, self._next_id = self._next_id, self._next_id + 1
        return search_id

    def _answer_of(self, response: wire.SearchResponse) -> NodeAnswer | RangefinderError:
        if response.WhichOneof("outcome") == "failure":
            failure = response.failure
            known = error_with_reason(failure.reason, failure.message)
            return known or Internal(f"node {self.name}: {failure.reason}: {failure.message}")
        try:
            return answer_of(response.answer)
        except Exception:  # Columns that do not fit: a bug of the node, but of this search alone.
            self._log.exception("answer_not_read", node=self.name)
            return Internal(f"node {self.name} answered with columns that do not fit")


class NodeConnection(Frames):
    """One connection of a link; of those that were opened, the link uses the newest."""

    def __init__(self, link: NodeLink) -> None:
        super().__init__(INTERNAL_BYTES_MAX)
        self._link = link
        self.is_draining = False
        self.has_begun, self.is_over = asyncio.Event(), asyncio.Event()

    def message_received(self, content: bytes) -> None:
        try:
            response = wire.SearchResponse.FromString(content)
        except DecodeError:
            self.abort()
            return
        self.is_draining |= response.draining
        if self.has_begun.is_set():
            self._link.received(response)
        elif response.ready:
            self.has_begun.set()
        else:
            self.abort()

    def closed(self, why: str) -> None:
        was_used = self.has_begun.is_set() and not self.is_over.is_set()
        self.is_over.set()
        self.has_begun.set()
        if was_used:
            self._link.lost(why)
