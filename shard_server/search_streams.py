"""Searches on the streams of routers: tagged, several in flight, answered as they are ready."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rangefinder.deadline import Deadline
from rangefinder.edge.service import Stream
from rangefinder.errors import InvalidRequest, RangefinderError
from rangefinder.internal.v1 import node_pb2 as wire
from rangefinder.keys import Keys
from rangefinder.merge import NO_SCORE
from rangefinder.telemetry.logs import get_log
from shard_server.batch_search import BatchOutcome, search_at_once, search_batch
from shard_server.node import Node
from shard_server.segment import Search
from shard_server.wire import column, places_in, shard_outcome

# Longest that work may go on for, whatever a router says.
_TIME_LEFT_S_MAX = 10.0

# For what a router sent before it heard that the node drains.
_FAREWELL_S = 0.5

SearchStream = Stream[wire.SearchRequest]


@dataclass(slots=True)
class _StreamSearches:
    """The searches of one stream: bounded in number, each may be cancelled before it began."""

    permits: asyncio.Semaphore
    cancelled: set[int] = field(default_factory=set)
    in_flight: set[int] = field(default_factory=set)


class SearchStreams:
    """All streams of this node."""

    def __init__(self, node: Node, searches_in_flight_max: int) -> None:
        self._node = node
        self._searches_in_flight_max = searches_in_flight_max
        self._draining = asyncio.Event()
        self._log = get_log()

    def drain(self) -> None:
        """Tell every stream to go elsewhere; what was read is still answered."""
        self._draining.set()

    async def serve(self, stream: SearchStream) -> None:
        """Answer searches as they are ready, until the router or this node ends the stream."""
        self._node.require_ready()
        await stream.write(wire.SearchResponse(ready=True))
        searches = _StreamSearches(asyncio.Semaphore(self._searches_in_flight_max))
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read(stream, searches, group), name="read-searches")
            farewell = group.create_task(self._say_goodbye(stream), name="farewell")
            await asyncio.wait((reader, farewell), return_when=asyncio.FIRST_COMPLETED)
            reader.cancel()
            farewell.cancel()

    async def _say_goodbye(self, stream: SearchStream) -> None:
        await self._draining.wait()
        await stream.write(wire.SearchResponse(draining=True))
        await asyncio.sleep(_FAREWELL_S)

    async def _read(
        self, stream: SearchStream, searches: _StreamSearches, group: asyncio.TaskGroup
    ) -> None:
        async for request in stream:
            if request.WhichOneof("message") == "cancel":
                searches.cancelled |= {request.search_id} & searches.in_flight
                continue
            arrived_s = time.monotonic()
            at_once = self._response_at_once(request, arrived_s)
            if at_once is not None:
                await stream.write(at_once)
                continue
            await searches.permits.acquire()
            searches.in_flight.add(request.search_id)
            group.create_task(
                self._answer(stream, searches, request, arrived_s),
                name=f"search-{request.search_id}",
            )

    async def _answer(
        self,
        stream: SearchStream,
        searches: _StreamSearches,
        request: wire.SearchRequest,
        arrived_s: float,
    ) -> None:
        try:
            if request.search_id not in searches.cancelled:
                await stream.write(await self._response(request, arrived_s))
        finally:
            searches.cancelled.discard(request.search_id)
            searches.in_flight.discard(request.search_id)
            searches.permits.release()

    def _response_at_once(
        self, request: wire.SearchRequest, arrived_s: float
    ) -> wire.SearchResponse | None:
        """The answer to a search so small that handing it over would cost more than it does."""
        try:
            search = self._search_of(request.batch)
            outcome = search_at_once(self._node, request.batch.shards, search)
            return None if outcome is None else self._answered(request, outcome, arrived_s)
        except Exception as error:
            return self._failed(request, error)

    async def _response(self, request: wire.SearchRequest, arrived_s: float) -> wire.SearchResponse:
        try:
            search = self._search_of(request.batch)
            outcome = await search_batch(self._node, request.batch.shards, search)
            return self._answered(request, outcome, arrived_s)
        except Exception as error:
            return self._failed(request, error)

    def _search_of(self, batch: wire.SearchBatch) -> Search:
        self._node.require_placement(batch.map_epoch, batch.release)
        return search_of(batch, self._node.manifest.dimension)

    def _answered(
        self, request: wire.SearchRequest, outcome: BatchOutcome, arrived_s: float
    ) -> wire.SearchResponse:
        node, names = self._node, request.batch.shards
        answer = wire.SearchAnswer(
            shards=[shard_outcome(node, name, outcome.missed.get(name, "")) for name in names],
            duration_ms=(time.monotonic() - arrived_s) * 1000,
            queue_length=node.waiting_count,
        )
        keys = _fill_columns(answer, outcome)
        if not node.manifest.id_kind.is_integer:
            answer.texts.extend(self._texts(keys))
        return wire.SearchResponse(search_id=request.search_id, answer=answer)

    def _failed(self, request: wire.SearchRequest, error: Exception) -> wire.SearchResponse:
        if isinstance(error, RangefinderError):
            failure = wire.SearchFailure(reason=error.reason, message=error.message)
        else:
            self._log.error("search_failed", exc_info=error)
            failure = wire.SearchFailure(reason="INTERNAL", message="a bug of the node: see its log")
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
    if not 1 <= batch.query_count <= 1024 or batch.query_count != len(batch.item_counts):
        raise InvalidRequest("batch.query_count", "1 to 1024, one item count for each query")
    queries = column(batch.queries, np.float32, "batch.queries")
    if len(queries) != batch.query_count * dimension:
        raise InvalidRequest("batch.queries", f"{len(queries)} values for {batch.query_count} queries")
    deadline = Deadline.after(min(batch.time_left_ms / 1000, _TIME_LEFT_S_MAX), time.monotonic)
    return Search(
        queries=queries.reshape(-1, dimension),
        wanted=np.array(batch.item_counts, np.int64),
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
    found = scores > NO_SCORE
    if not found.all():
        answer.item_counts.extend(found.sum(axis=1).tolist())
        keys, scores = keys[found], scores[found]
    else:
        answer.item_counts.extend([keys.shape[1]] * len(keys))
    answer.keys, answer.scores = keys.tobytes(), scores.tobytes()
    return keys.ravel()
