"""The node's gRPC service: searches on streams, items and status by calls."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.message import Message

from rangefinder import __version__
from rangefinder.deadline import Deadline
from rangefinder.edge.items import item_message
from rangefinder.edge.service import BidiStream, Call, Handler, Stream, Unary
from rangefinder.errors import InvalidRequest, RangefinderError
from rangefinder.internal.v1 import node_pb2 as wire
from rangefinder.keys import KEY_COUNT, Keys
from rangefinder.merge import NO_SCORE
from rangefinder.telemetry.logs import get_log
from rangefinder.telemetry.process import memory, start_time_s
from rangefinder.v1.item_pb2 import Item
from shard_server.batch_search import BatchOutcome, search_batch
from shard_server.node import Node
from shard_server.segment import Search
from shard_server.shard import Shard, StoredItem

# Longest that work may go on for, whatever a router says.
_TIME_LEFT_S_MAX = 10.0
_PAGE_ITEMS_MAX = 1_000

SearchStream = Stream[wire.SearchRequest]


@dataclass(slots=True)
class _StreamSearches:
    """The searches of one stream: bounded in number, each may be cancelled before it began."""

    permits: asyncio.Semaphore
    cancelled: set[int] = field(default_factory=set)
    in_flight: set[int] = field(default_factory=set)


class NodeService:
    """RPCs of rangefinder.internal.v1.NodeService."""

    def __init__(self, node: Node, searches_in_flight_max: int) -> None:
        self._node = node
        self._searches_in_flight_max = searches_in_flight_max
        self._draining = asyncio.Event()
        self._log = get_log()

    def handlers(self) -> dict[str, Handler]:
        """Every RPC; each obeys every field of its request."""
        return {
            "Search": BidiStream(self.search),
            "ReadItems": _unary(self.read_items, wire.ReadItemsRequest),
            "ScanShard": _unary(self.scan_shard, wire.ScanShardRequest),
            "GetNodeStatus": _unary(self.get_node_status, wire.GetNodeStatusRequest),
        }

    async def drain(self) -> None:
        """Tell every stream to go elsewhere; what was read is still answered."""
        self._node.drain()
        self._draining.set()

    async def search(self, stream: SearchStream) -> None:
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
        # A moment for what the router sent before it heard; it then closes its side.
        await asyncio.sleep(0.5)

    async def _read(
        self, stream: SearchStream, searches: _StreamSearches, group: asyncio.TaskGroup
    ) -> None:
        async for request in stream:
            if request.WhichOneof("message") == "cancel":
                searches.cancelled |= {request.search_id} & searches.in_flight
                continue
            await searches.permits.acquire()
            searches.in_flight.add(request.search_id)
            group.create_task(
                self._answer(stream, searches, request, time.monotonic()),
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
                await stream.write(await self._outcome(request, arrived_s))
        finally:
            searches.cancelled.discard(request.search_id)
            searches.in_flight.discard(request.search_id)
            searches.permits.release()

    async def _outcome(self, request: wire.SearchRequest, arrived_s: float) -> wire.SearchResponse:
        try:
            answer = await self._search_batch(request.batch, arrived_s)
            return wire.SearchResponse(search_id=request.search_id, answer=answer)
        except RangefinderError as error:
            failure = wire.SearchFailure(reason=error.reason, message=error.message)
        except Exception:
            self._log.exception("search_failed")
            failure = wire.SearchFailure(reason="INTERNAL", message="a bug of the node: see its log")
        return wire.SearchResponse(search_id=request.search_id, failure=failure)

    async def _search_batch(self, batch: wire.SearchBatch, arrived_s: float) -> wire.SearchAnswer:
        node = self._node
        node.require_placement(batch.map_epoch, batch.release)
        search = search_of(batch, node.manifest.dimension)
        outcome = await search_batch(node, batch.shards, search)
        answer = wire.SearchAnswer(
            shards=[self._shard_outcome(name, outcome.missed.get(name, "")) for name in batch.shards],
            duration_ms=(time.monotonic() - arrived_s) * 1000,
            queue_length=node.waiting_count,
        )
        _fill_columns(answer, outcome)
        if not node.manifest.id_kind.is_integer:
            keys = outcome.hits.keys[outcome.hits.scores > NO_SCORE]
            answer.texts.extend(self._texts(keys))
        return answer

    def _texts(self, keys: Keys) -> list[bytes]:
        """The text ids of keys, each of a shard of this node."""
        texts: list[bytes] = [b""] * len(keys)
        for shard in self._node.shards_ready():
            places = _places_in(shard, keys)
            for place, text in zip(places.tolist(), shard.texts_of(keys[places]), strict=True):
                texts[place] = text
        return texts

    def _shard_outcome(self, name: str, missed_reason: str) -> wire.ShardOutcome:
        replica = self._node.replicas[name]
        return wire.ShardOutcome(
            shard=name,
            item_count=replica.about.item_count,
            missed_reason=missed_reason,
            probe_recall=replica.probe_recall or 0.0,
        )

    async def read_items(self, request: wire.ReadItemsRequest, call: Call) -> wire.ReadItemsResponse:
        """Items by key; those that do not exist are left out."""
        self._node.require_placement(request.map_epoch, request.release)
        self._node.require_ready()
        keys = _column(request.keys, np.uint64, "keys")
        call.deadline.require_time_left()
        return await self._node.on_thread(partial(self._read_items, keys, request.with_embeddings))

    def _read_items(self, keys: Keys, with_embeddings: bool) -> wire.ReadItemsResponse:
        response = wire.ReadItemsResponse()
        found: dict[int, StoredItem] = {}
        for shard in self._node.shards_ready():
            response.shards.append(self._shard_outcome(shard.name, ""))
            places = _places_in(shard, keys)
            found |= {item.key: item for item in shard.read(keys[places])}
        for place, key in enumerate(keys.tolist()):
            if key in found:
                response.places.append(place)
                response.items.append(self._message(found[key], with_embeddings))
        return response

    def _message(self, item: StoredItem, with_embeddings: bool) -> Item:
        kind = self._node.manifest.id_kind
        row = item.row if with_embeddings else None
        return item_message(kind, item.key, item.text, item.attributes, row)

    async def scan_shard(self, request: wire.ScanShardRequest, call: Call) -> wire.ScanShardResponse:
        """A page of items in key order."""
        self._node.require_placement(request.map_epoch, request.release)
        self._node.require_ready()
        shard = self._node.ready_shards([request.shard])[request.shard]
        assert shard is not None, "READY means every shard is"
        call.deadline.require_time_left()
        return await self._node.on_thread(partial(self._scan_shard, shard, request))

    def _scan_shard(self, shard: Shard, request: wire.ScanShardRequest) -> wire.ScanShardResponse:
        key_end = request.key_end or KEY_COUNT
        each = 32 + (4 * self._node.manifest.dimension if request.with_embeddings else 0)
        count = min(max(request.page_bytes_max // each, 1), _PAGE_ITEMS_MAX)
        page = shard.page(request.key_start, key_end, count)
        response = wire.ScanShardResponse(outcome=self._shard_outcome(shard.name, ""))
        size, taken = 0, 0
        for item in page:
            message = self._message(item, request.with_embeddings)
            size += message.ByteSize() + 16
            if taken and size > request.page_bytes_max:
                break
            response.items.append(message)
            taken += 1
        response.keys = np.array([item.key for item in page[:taken]], np.uint64).tobytes()
        response.complete = taken == len(page) < count
        return response

    async def get_node_status(
        self, request: wire.GetNodeStatusRequest, call: Call
    ) -> wire.GetNodeStatusResponse:
        """Answered in every state."""
        del request, call
        held, now_s = memory(), time.monotonic()
        response = wire.GetNodeStatusResponse(
            node=self._node.placement.node,
            state=self._node.state,
            software_version=__version__,
            memory_bytes=held.resident,
            private_memory_bytes=held.private,
            memory_limit_bytes=held.limit,
        )
        response.start_time.FromMilliseconds(int(start_time_s() * 1000))
        for replica in self._node.replicas.values():
            response.replicas.add(
                shard=replica.name,
                release=replica.release,
                state=replica.state,
                item_count=replica.about.item_count,
                memory_bytes=replica.shard.memory_bytes if replica.shard else 0,
                query_rate=replica.durations.rate(now_s),
                p99_ms=replica.durations.percentile_s(now_s, 0.99) * 1000,
                probe_recall=replica.probe_recall,
                load_s=replica.load_s,
            )
        return response


def search_of(batch: wire.SearchBatch, dimension: int) -> Search:
    """A batch off the wire as a search. Raises InvalidRequest."""
    if not 1 <= batch.query_count <= 1024 or batch.query_count != len(batch.item_counts):
        raise InvalidRequest("batch.query_count", "1 to 1024, one item count for each query")
    queries = _column(batch.queries, np.float32, "batch.queries")
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
    keys = _column(batch.excluded_keys, np.uint64, "batch.excluded_keys")
    ends = np.cumsum(batch.excluded_counts)
    if len(ends) != batch.query_count or ends[-1] != len(keys):
        raise InvalidRequest("batch.excluded_counts", "one for each query, adding up to the keys")
    return np.split(keys, ends[:-1])


def _column(content: bytes, dtype: type[np.generic], field_name: str) -> np.ndarray:
    """A little-endian column. Raises InvalidRequest where the bytes are not whole values."""
    if len(content) % np.dtype(dtype).itemsize:
        raise InvalidRequest(field_name, f"{len(content)} bytes are no column of {dtype.__name__}")
    return np.frombuffer(content, dtype)


def _fill_columns(answer: wire.SearchAnswer, outcome: BatchOutcome) -> None:
    found = outcome.hits.scores > NO_SCORE
    answer.keys = outcome.hits.keys[found].tobytes()
    answer.scores = outcome.hits.scores[found].tobytes()
    answer.item_counts.extend(outcome.hits.counts.tolist())


def _places_in(shard: Shard, keys: Keys) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Places of the keys in the range of a shard."""
    inside = keys >= np.uint64(shard.about.key_start)
    if shard.about.key_end < KEY_COUNT:
        inside &= keys < np.uint64(shard.about.key_end)
    return np.flatnonzero(inside)


def _unary(handle: Callable[[Any, Call], Awaitable[Message]], request: type[Message]) -> Unary:
    return Unary(handle, frozenset(request.DESCRIPTOR.fields_by_name))
