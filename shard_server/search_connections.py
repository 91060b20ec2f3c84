"""Searches on the connections of routers: tagged, several in flight, answered as they are ready."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import numpy as np
from google.protobuf.message import DecodeError, Message

from rangefinder.deadline import Deadline
from rangefinder.edge.channel import INTERNAL_BYTES_MAX
from rangefinder.edge.frames import Frames, listen
from rangefinder.errors import AddressInUse, InvalidRequest, RangefinderError
from rangefinder.internal.v1 import node_pb2 as wire
from rangefinder.keys import Keys
from rangefinder.merge import NO_SCORE
from rangefinder.telemetry.logs import get_log
from rangefinder.telemetry.metrics import RpcMetrics
from shard_server.batch_search import BatchOutcome, search_at_once, search_batch
from shard_server.node import Node
from shard_server.segment import Search
from shard_server.wire import column, places_in, shard_outcome

# Longest that work may go on for, whatever a router says.
_TIME_LEFT_S_MAX = 10.0

# Router workers of one cluster; each has one connection.
_CONNECTIONS_MAX = 1_000

# For what a router sent before it heard that the node drains.
_FAREWELL_S = 0.5


class SearchConnections:
    """All connections of routers to this node."""

    def __init__(self, node: Node, searches_in_flight_max: int, metrics: RpcMetrics) -> None:
        self.answers = Answers(node, metrics)
        self.in_flight_max = searches_in_flight_max
        self.port = 0
        self._node = node
        self._open: set[RouterConnection] = set()
        self._are_closed = asyncio.Event()
        self._servers: list[asyncio.Server] = []

    async def listen(self, host: str, port: int) -> None:
        """Accept connections; port 0 is a free one. Raises AddressInUse."""
        try:
            self._servers = await listen(self._accept, host, port)
        except OSError as error:
            raise AddressInUse(f"{host}:{port}: searches: {error.strerror}") from None
        self.port = self._servers[0].sockets[0].getsockname()[1]

    @property
    def in_flight(self) -> int:
        """Searches under way on all connections."""
        return sum(connection.in_flight for connection in self._open)

    def _accept(self) -> "RouterConnection":
        return RouterConnection(self)

    def add(self, connection: "RouterConnection") -> None:
        """Greet a router; one that comes before the node is READY, or is one too many, is sent away."""
        if len(self._open) >= _CONNECTIONS_MAX or not self._node.is_ready:
            connection.abort()
            return
        self._open.add(connection)
        connection.send_message(wire.SearchResponse(ready=True))

    def remove(self, connection: "RouterConnection") -> None:
        self._open.discard(connection)
        if not self._open:
            self._are_closed.set()

    async def drain(self, within_s: float) -> None:
        """Send routers elsewhere; what they sent is still answered. They close their connections."""
        for server in self._servers:
            server.close()
        for connection in list(self._open):
            connection.send_message(wire.SearchResponse(draining=True))
        if self._open:
            self._are_closed.clear()
            with contextlib.suppress(TimeoutError):  # Those that are left had their time.
                async with asyncio.timeout(max(within_s, _FAREWELL_S)):
                    await self._are_closed.wait()
        for connection in list(self._open):
            connection.abort()


class RouterConnection(Frames):
    """One router worker. Small searches are answered where they arrive, others by a task each."""

    def __init__(self, connections: SearchConnections) -> None:
        super().__init__(INTERNAL_BYTES_MAX)
        self._connections, self._answers = connections, connections.answers
        self._in_flight: dict[int, asyncio.Task[None]] = {}

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def opened(self) -> None:
        self._connections.add(self)

    def closed(self, why: str) -> None:
        self._connections.remove(self)
        for task in self._in_flight.values():
            task.cancel()

    def send_message(self, message: Message) -> None:
        self.send(message.SerializeToString())

    def message_received(self, content: bytes) -> None:
        arrived_s = time.monotonic()
        try:
            request = wire.SearchRequest.FromString(content)
        except DecodeError:
            get_log().warning("garbage_received", size=len(content))
            self.abort()
            return
        match request.WhichOneof("message"):
            case "batch":
                self._search(request, arrived_s)
            case "cancel":
                self._cancel(request.search_id)
            case _:
                self.send_message(wire.SearchResponse(search_id=request.search_id, ready=True))

    def congestion_changed(self) -> None:
        self._pause_or_resume()

    def _search(self, request: wire.SearchRequest, arrived_s: float) -> None:
        at_once = self._answers.at_once(request, arrived_s)
        if at_once is not None:
            self.send_message(at_once)
            return
        task = asyncio.create_task(self._answer(request, arrived_s), name=f"search-{request.search_id}")
        self._in_flight[request.search_id] = task
        task.add_done_callback(lambda _: self._end(request.search_id))
        self._pause_or_resume()

    async def _answer(self, request: wire.SearchRequest, arrived_s: float) -> None:
        self.send_message(await self._answers.later(request, arrived_s))

    def _cancel(self, search_id: int) -> None:
        """What a thread has begun is not undone; its answer is dropped."""
        if task := self._in_flight.get(search_id):
            task.cancel()

    def _end(self, search_id: int) -> None:
        self._in_flight.pop(search_id, None)
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        if self.is_congested or len(self._in_flight) >= self._connections.in_flight_max:
            self.pause()
        else:
            self.resume()


class Answers:
    """What the node has to say to a search, from message to message."""

    def __init__(self, node: Node, metrics: RpcMetrics) -> None:
        self._node, self._metrics = node, metrics
        self._log = get_log()

    def at_once(self, request: wire.SearchRequest, arrived_s: float) -> wire.SearchResponse | None:
        """The answer to a search so small that handing it over would cost more than it does."""
        try:
            search = self._search_of(request.batch)
            outcome = search_at_once(self._node, request.shards, search)
            return None if outcome is None else self._answered(request, outcome, arrived_s)
        except Exception as error:
            return self._failed(request, error, arrived_s)

    async def later(self, request: wire.SearchRequest, arrived_s: float) -> wire.SearchResponse:
        """The answer to any search, found on the node's threads."""
        try:
            search = self._search_of(request.batch)
            outcome = await search_batch(self._node, request.shards, search)
            return self._answered(request, outcome, arrived_s)
        except Exception as error:
            return self._failed(request, error, arrived_s)

    def _search_of(self, batch: wire.SearchBatch) -> Search:
        self._node.require_placement(batch.map_epoch, batch.release)
        return search_of(batch, self._node.manifest.dimension)

    def _answered(
        self, request: wire.SearchRequest, outcome: BatchOutcome, arrived_s: float
    ) -> wire.SearchResponse:
        node, names = self._node, request.shards
        answer = wire.SearchAnswer(
            shards=[shard_outcome(node, name, outcome.missed.get(name, "")) for name in names],
            duration_ms=(time.monotonic() - arrived_s) * 1000,
            queue_length=node.waiting_count,
        )
        keys = _fill_columns(answer, outcome)
        if not node.manifest.id_kind.is_integer:
            answer.texts.extend(self._texts(keys))
        self._metrics.observe("Search", "OK", time.monotonic() - arrived_s)
        return wire.SearchResponse(search_id=request.search_id, answer=answer)

    def _failed(
        self, request: wire.SearchRequest, error: Exception, arrived_s: float
    ) -> wire.SearchResponse:
        if isinstance(error, RangefinderError):
            failure = wire.SearchFailure(reason=error.reason, message=error.message)
        else:
            self._log.error("search_failed", exc_info=error)
            failure = wire.SearchFailure(reason="INTERNAL", message="a bug of the node: see its log")
        self._metrics.observe("Search", failure.reason, time.monotonic() - arrived_s)
        return wire.SearchResponse(search_id=request.search_id, failure=failure)

    def _texts(self, keys: Keys) -> list[bytes]:
        """The text ids of keys, each of a shard of this node."""
        texts: list[bytes] = [b""] * len(keys)
        for shard in self._node.shards_ready():
            places = places_in(shard, keys)
            for place, text in zip(places.tolist(), shard.texts_of(keys[places]), strict=True):
                texts[place] = text
        return texts


def search_of(batch: wire.SearchBatch, dimension: int) -> Search:
    """A batch off the wire as a search. Raises InvalidRequest."""
    count, content = batch.query_count, batch.queries
    if not 1 <= count <= 1024 or count != len(batch.item_counts):
        raise InvalidRequest("batch.query_count", "1 to 1024, one item count for each query")
    if len(content) != 4 * count * dimension:
        raise InvalidRequest("batch.queries", f"{len(content)} bytes for {count} queries")
    deadline = Deadline.after(min(batch.time_left_ms / 1000, _TIME_LEFT_S_MAX), time.monotonic)
    return Search(
        queries=np.ndarray((count, dimension), np.float32, content),
        wanted=np.array(list(batch.item_counts)),
        width=batch.search_width,
        exact=batch.exact,
        excluded=_excluded(batch),
        require_time_left=deadline.require_time_left,
    )


def _excluded(batch: wire.SearchBatch) -> Sequence[Keys]:
    if not batch.excluded_counts:
        return ()
    keys = column(batch.excluded_keys, np.uint64, "batch.excluded_keys")
    ends = np.cumsum(batch.excluded_counts)
    if len(ends) != batch.query_count or ends[-1] != len(keys):
        raise InvalidRequest("batch.excluded_counts", "one for each query, adding up to the keys")
    return np.split(keys, ends[:-1])


def _fill_columns(answer: wire.SearchAnswer, outcome: BatchOutcome) -> Keys:
    """Write the hits of all queries, one after another; returns their keys."""
    keys, scores = outcome.hits.keys, outcome.hits.scores
    if scores.shape[1] and (scores[:, -1] == NO_SCORE).any():
        found = scores > NO_SCORE
        answer.item_counts.extend(found.sum(axis=1).tolist())
        keys, scores = keys[found], scores[found]
    else:
        answer.item_counts.extend([keys.shape[1]] * len(keys))
    answer.keys, answer.scores = keys.tobytes(), scores.tobytes()
    return keys.ravel()
