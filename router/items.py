"""ItemService as far as reading goes: GetItems, ScanItems."""

import time
from collections.abc import AsyncIterator, Mapping

import numpy as np

from rangefinder.cluster_map import ClusterMap, Release, Shard
from rangefinder.deadline import Deadline
from rangefinder.edge.service import Call, Handler, ServerStream, Unary
from rangefinder.errors import CoverageTooLow, InvalidRequest
from rangefinder.internal.v1 import node_pb2 as wire
from rangefinder.keys import KEY_COUNT, Keys
from rangefinder.v1 import item_pb2 as public
from rangefinder.v1.types_pb2 import ItemIds
from router.certificate import certificate_of
from router.coverage import Coverage, ShardResult, cover
from router.fan_out import fan_out
from router.item_reads import ItemRead, ItemReads, Wanted
from router.node_link import NodeLink
from router.requests import keys_of_ids

ITEMS_MAX = 1_000
EMBEDDING_VALUES_MAX = 800_000

# An answer holds 4 MiB; what the certificate and the unread ids take is kept back.
_ITEM_BYTES_MAX = (4 << 20) - (512 << 10)
_PAGE_BYTES_MAX = 1 << 20
_PAGE_S_MAX = 5.0


class ItemService:
    """RPCs of rangefinder.v1.ItemService that change nothing."""

    def __init__(self, cluster_map: ClusterMap, links: Mapping[str, NodeLink]) -> None:
        self._map, self._links = cluster_map, links
        self._reads = ItemReads(cluster_map, links)

    def handlers(self) -> dict[str, Handler]:
        return {
            "GetItems": Unary(self.get_items, frozenset(("items", "with_embeddings", "release"))),
            "ScanItems": ServerStream(
                self.scan_items, frozenset(("key_start", "key_end", "with_embeddings", "release"))
            ),
        }

    async def get_items(self, request: public.GetItemsRequest, call: Call) -> public.GetItemsResponse:
        """Items by id, in the order asked for; those of unreadable ranges are named."""
        release = self._map.release(request.release)
        keys = self._checked_keys(request, release)
        wanted = Wanted(request.items, keys, release, request.with_embeddings)
        read = await self._reads.read(wanted, call.deadline)
        found, results = read.found, read.results
        unread = list(_unread(self._map, read))
        response = public.GetItemsResponse(items=(found[place] for place in sorted(found)))
        response.unread_items.CopyFrom(_some_ids(request.items, unread))
        response.certificate.CopyFrom(certificate_of(self._map, release.name, self._coverage(results)))
        if response.ByteSize() > _ITEM_BYTES_MAX + (512 << 10):
            raise InvalidRequest("items", "their attributes exceed an answer of 4 MiB: ask for fewer")
        return response

    async def read(
        self, ids: ItemIds, keys: Keys, release: Release, deadline: Deadline
    ) -> tuple[dict[int, public.Item], dict[int, str]]:
        """Items by place among the ids, and why others could not be read; `keys` stand beside them."""
        read = await self._reads.read(Wanted(ids, keys, release), deadline)
        return read.found, _unread(self._map, read)

    def _checked_keys(self, request: public.GetItemsRequest, release: Release) -> Keys:
        keys = keys_of_ids(request.items, self._map.id_kind, "items", ITEMS_MAX)
        if not len(keys):
            raise InvalidRequest("items", f"1 to {ITEMS_MAX} ids, not 0")
        values = len(keys) * release.dimension
        if request.with_embeddings and values > EMBEDDING_VALUES_MAX:
            raise InvalidRequest(
                "items", f"{values} embedding values: at most {EMBEDDING_VALUES_MAX}, so ask for fewer"
            )
        return keys

    async def scan_items(
        self, request: public.ScanItemsRequest
    ) -> AsyncIterator[public.ScanItemsResponse]:
        """All items of a range of keys, shard after shard, page after page."""
        release = self._map.release(request.release)
        key_start, key_end = request.key_start, request.key_end or KEY_COUNT
        if key_start >= key_end:
            raise InvalidRequest("key_end", "not after key_start: give a half-open range, or 0 and 0")
        shards = self._map.shards_from(key_start, key_end)
        results: dict[str, ShardResult] = {}
        for shard in shards:
            place = max(key_start, shard.key_start)
            end = min(key_end, shard.key_end)
            is_complete = False
            while not is_complete:
                page = await self._page(shard, place, end, request.with_embeddings, release)
                keys = np.frombuffer(page.keys, np.uint64)
                is_complete = page.complete
                results[shard.name] = ShardResult(page.outcome.item_count)
                if len(keys):
                    yield public.ScanItemsResponse(items=page.items, keys=keys.tolist())
                    place = int(keys[-1]) + 1
                    is_complete = is_complete or place >= end
        certificate = certificate_of(self._map, release.name, self._coverage(results))
        yield public.ScanItemsResponse(certificate=certificate)

    def _coverage(self, results: Mapping[str, ShardResult]) -> Coverage:
        """Of the whole catalogue: a range that need not be read is not missed."""
        shards = self._map.serving_shards
        unasked = {shard.name: ShardResult(shard.item_count) for shard in shards}
        return cover(shards, unasked | dict(results), {})

    async def _page(
        self, shard: Shard, key_start: int, key_end: int, with_embeddings: bool, release: Release
    ) -> wire.ScanShardResponse:
        """One page, of whichever replica can give it. Raises CoverageTooLow where none can."""
        request = wire.ScanShardRequest(
            map_epoch=self._map.epoch,
            release=release.name,
            shard=shard.name,
            key_start=key_start,
            key_end=key_end % KEY_COUNT,
            with_embeddings=with_embeddings,
            page_bytes_max=_PAGE_BYTES_MAX,
        )
        for replica in shard.replicas:
            link = self._links[replica.node]
            if not link.is_usable:
                continue
            deadline = Deadline.after(_PAGE_S_MAX, time.monotonic)
            ask = {replica.node: lambda s, link=link: link.stub.ScanShard(request, timeout=s)}
            outcome = (await fan_out(ask, deadline))[replica.node]
            if isinstance(outcome, wire.ScanShardResponse):
                return outcome
        raise CoverageTooLow(
            f"no replica of shard {shard.name} answers: go on from key {key_start:#018x} later"
        )


def _unread(cluster_map: ClusterMap, read: ItemRead) -> dict[int, str]:
    """Why ids could not be read, by their place."""
    shards = cluster_map.serving_shards
    reasons = (read.results[shards[place].name].missed_reason for place in read.places.tolist())
    return {place: reason for place, reason in enumerate(reasons) if reason}


def _some_ids(ids: ItemIds, places: list[int]) -> ItemIds:
    """Those at some places of a column."""
    if ids.integers:
        return ItemIds(integers=[ids.integers[place] for place in places])
    return ItemIds(texts=[ids.texts[place] for place in places])
