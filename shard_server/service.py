"""The node's gRPC service: items and status. Searches have a port of their own."""

import time
from functools import partial

import numpy as np

from rangefinder import __version__
from rangefinder.edge.items import item_message
from rangefinder.edge.service import Call, Handler, Unary
from rangefinder.internal.v1 import node_pb2 as wire
from rangefinder.keys import KEY_COUNT, Keys
from rangefinder.telemetry.process import memory, start_time_s
from rangefinder.v1.item_pb2 import Item
from shard_server.node import Node
from shard_server.shard import Shard, StoredItem
from shard_server.wire import column, places_in, shard_outcome

_PAGE_ITEMS_MAX = 1_000


class NodeService:
    """RPCs of rangefinder.internal.v1.NodeService."""

    def __init__(self, node: Node, search_port: int) -> None:
        self._node, self._search_port = node, search_port

    def handlers(self) -> dict[str, Handler]:
        """Every RPC; each obeys every field of its request."""
        return {
            "ReadItems": Unary(self.read_items, None),
            "ScanShard": Unary(self.scan_shard, None),
            "GetNodeStatus": Unary(self.get_node_status, None),
        }

    async def read_items(self, request: wire.ReadItemsRequest, call: Call) -> wire.ReadItemsResponse:
        """Items by key; those that do not exist are left out."""
        self._node.require_placement(request.map_epoch, request.release)
        self._node.require_ready()
        keys = column(request.keys, np.uint64, "keys")
        call.deadline.require_time_left()
        return await self._node.on_thread(partial(self._read_items, keys, request.with_embeddings))

    def _read_items(self, keys: Keys, with_embeddings: bool) -> wire.ReadItemsResponse:
        response = wire.ReadItemsResponse()
        found: dict[int, StoredItem] = {}
        for shard in self._node.shards_ready():
            response.shards.append(shard_outcome(self._node, shard.name, ""))
            places = places_in(shard, keys)
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
        response = wire.ScanShardResponse(outcome=shard_outcome(self._node, shard.name, ""))
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
            search_port=self._search_port,
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
