"""Items by key, of the nodes that hold them; what a node could not take is asked once of another."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from rangefinder.cluster_map import ClusterMap, Release, Shard
from rangefinder.deadline import Deadline
from rangefinder.errors import ReplicaUnavailable, UnknownShard
from rangefinder.internal.v1 import node_pb2 as wire
from rangefinder.keys import Keys
from rangefinder.v1 import item_pb2 as public
from rangefinder.v1.types_pb2 import ItemIds
from router.coverage import ShardResult
from router.fan_out import fan_out
from router.hedging import may_retry
from router.node_link import NodeLink
from router.replicas import Replicas


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be read; `keys` stand beside the ids."""

    ids: ItemIds
    keys: Keys
    release: Release
    with_embeddings: bool = False


@dataclass(slots=True)
class ItemRead:
    """Items by place among the ids, and what became of each shard that one of these lies in."""

    wanted: Wanted
    places: npt.NDArray[np.intp]  # Of each key's shard in the map.
    found: dict[int, public.Item] = field(default_factory=dict)
    results: dict[str, ShardResult] = field(default_factory=dict)


class ItemReads:
    """Reads of one router worker."""

    def __init__(self, cluster_map: ClusterMap, links: Mapping[str, NodeLink]) -> None:
        self._map, self._links = cluster_map, links
        self._replicas = Replicas(cluster_map, links)
        self._number_of = {shard.name: n for n, shard in enumerate(cluster_map.serving_shards)}

    async def read(self, wanted: Wanted, deadline: Deadline) -> ItemRead:
        """Read what can be read by then."""
        read = ItemRead(wanted, self._map.shard_places(wanted.keys))
        shards = self._map.serving_shards
        asked = [shards[place] for place in np.unique(read.places).tolist()]
        ends = deadline.with_reserve()
        not_taken = await self._ask(read, asked, (), ends)
        if not_taken:
            again = [shards[self._number_of[name]] for names in not_taken.values() for name in names]
            await self._ask(read, again, tuple(not_taken), ends)
        return read

    async def _ask(
        self, read: ItemRead, shards: Sequence[Shard], tried: Sequence[str], ends: Deadline
    ) -> dict[str, list[str]]:
        """Ask a node for each shard; returns the shards that could not be taken, by node."""
        choice = self._replicas.choose(shards, time.monotonic(), tried)
        for name in choice.unavailable:
            read.results.setdefault(name, ShardResult(None, ReplicaUnavailable.reason))
        asked = {node: self._keys_in(read, names) for node, names in choice.shards_of_node.items()}
        calls = {
            node: partial(self._read_from, read.wanted, node, names, asked[node])
            for node, names in choice.shards_of_node.items()
        }
        not_taken = {}
        for node, outcome in (await fan_out(calls, ends)).items():
            names = choice.shards_of_node[node]
            if isinstance(outcome, wire.ReadItemsResponse):
                _take(read, names, asked[node], outcome)
                continue
            read.results |= dict.fromkeys(names, ShardResult(None, outcome.reason))
            if may_retry(outcome, ends.remaining_s()):
                not_taken[node] = names
        return not_taken

    def _keys_in(self, read: ItemRead, names: Sequence[str]) -> npt.NDArray[np.intp]:
        """Places of the keys that lie in some shards."""
        return np.flatnonzero(np.isin(read.places, [self._number_of[name] for name in names]))

    async def _read_from(
        self,
        wanted: Wanted,
        node: str,
        names: Sequence[str],
        own: npt.NDArray[np.intp],
        timeout_s: float,
    ) -> wire.ReadItemsResponse:
        """What a node has of the keys at some places, all of which lie in some shards."""
        request = wire.ReadItemsRequest(
            map_epoch=self._map.epoch,
            release=wanted.release.name,
            keys=wanted.keys[own].tobytes(),
            with_embeddings=wanted.with_embeddings,
        )
        answer = await self._links[node].stub.ReadItems(request, timeout=timeout_s)
        if not {each.shard for each in answer.shards}.issuperset(names):
            raise UnknownShard(f"node {node} holds fewer shards than the map says")
        return answer


def _take(
    read: ItemRead,
    names: Sequence[str],
    own: npt.NDArray[np.intp],
    answer: wire.ReadItemsResponse,
) -> None:
    """Keep what a node has read of the keys at some places."""
    items = zip(own[list(answer.places)].tolist(), answer.items, strict=True)
    read.found |= {place: item for place, item in items if _is_asked(read.wanted.ids, place, item)}
    counts = {each.shard: each.item_count for each in answer.shards}
    read.results |= {name: ShardResult(counts[name]) for name in names}


def _is_asked(ids: ItemIds, place: int, item: public.Item) -> bool:
    """Whether an item found by its key is the one asked for: texts may share a key."""
    return not ids.texts or item.text_id == ids.texts[place]
