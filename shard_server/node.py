"""What a node holds: the replicas that the map gives it, loaded from the release."""

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from rangefinder.cluster_map import ClusterMap, ReplicaState
from rangefinder.errors import InputRefused, MapChanged, NotReady, ReleaseNotServed, UnknownShard
from rangefinder.release import ReleaseManifest, ReleaseShard
from rangefinder.telemetry.logs import get_log
from shard_server.replica import Replica
from shard_server.shard import Shard, load_probes

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The part of a release that a node holds under a map."""

    node: str
    cluster_map: ClusterMap
    manifest: ReleaseManifest
    shards: tuple[ReleaseShard, ...]


def placement_of(node: str, cluster_map: ClusterMap, manifest: ReleaseManifest) -> Placement:
    """Raises InputRefused where the map does not know the node, or is of another release."""
    if node not in {known.name for known in cluster_map.nodes}:
        raise InputRefused(f"node {node} is not in the cluster map: give the name that it has there")
    if cluster_map.active_release != manifest.name or cluster_map.id_kind is not manifest.id_kind:
        raise InputRefused(
            f"the map serves release {cluster_map.active_release}, but the directory holds"
            f" {manifest.name}"
        )
    built = {shard.name: shard for shard in manifest.shards}
    held = []
    for shard in cluster_map.serving_shards:
        if node not in {replica.node for replica in shard.replicas}:
            continue
        about = built.get(shard.name)
        if about is None or (about.key_start, about.key_end) != (shard.key_start, shard.key_end):
            raise InputRefused(f"shard {shard.name} of the map is not in release {manifest.name}")
        held.append(about)
    return Placement(node=node, cluster_map=cluster_map, manifest=manifest, shards=tuple(held))


class Node:
    """The replicas of this process, and the threads that search them."""

    def __init__(self, placement: Placement, root: Path, thread_count: int) -> None:
        self.placement, self._root = placement, root
        self.thread_count = thread_count or len(os.sched_getaffinity(0))
        self._threads = ThreadPoolExecutor(self.thread_count, "search")
        self._work_count = 0
        self.replicas = {
            shard.name: Replica(about=shard, release=placement.manifest.name)
            for shard in placement.shards
        }
        self._log = get_log()

    @property
    def manifest(self) -> ReleaseManifest:
        return self.placement.manifest

    @property
    def state(self) -> ReplicaState:
        """READY when every replica is."""
        states = {replica.state for replica in self.replicas.values()}
        for state in (ReplicaState.LOADING, ReplicaState.DRAINING):
            if state in states:
                return state
        return ReplicaState.READY

    @property
    def is_idle(self) -> bool:
        """No thread has work."""
        return self._work_count == 0

    @property
    def waiting_count(self) -> int:
        """Pieces of work that wait for a thread."""
        return max(0, self._work_count - self.thread_count)

    async def load(self) -> None:
        """Load every replica, as many at once as there are threads. Raises ReleaseDamaged."""
        probes = await self.on_thread(partial(load_probes, self._root, self.manifest))
        await asyncio.gather(
            *(
                self._load_replica(replica, partial(replica.load, self._root, self.manifest, probes))
                for replica in self.replicas.values()
            )
        )

    async def _load_replica(self, replica: Replica, load: Callable[[], None]) -> None:
        await self.on_thread(load)
        assert replica.shard is not None
        self._log.info(
            "replica_ready",
            shard=replica.name,
            items=replica.shard.item_count,
            bytes=replica.shard.memory_bytes,
            seconds=round(replica.load_s, 3),
            probe_recall=replica.probe_recall,
        )

    def on_thread(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Run blocking work on one of the node's threads."""
        self._work_count += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._on_work_done)
        return future

    def _on_work_done(self, future: "asyncio.Future[T]") -> None:
        del future
        self._work_count -= 1

    def require_placement(self, map_epoch: int, release: str) -> None:
        """Refuse what was asked under another map or of another release."""
        own = self.placement.cluster_map.epoch
        if map_epoch != own:
            raise MapChanged(f"asked under map epoch {map_epoch}, this node has {own}: refresh the map")
        if release != self.manifest.name:
            raise ReleaseNotServed(f"this node serves release {self.manifest.name}, not {release}")

    @property
    def is_ready(self) -> bool:
        return self.state is ReplicaState.READY

    def require_ready(self) -> None:
        if not self.is_ready:
            raise NotReady(f"node {self.placement.node} is {self.state}: ask another, or later")

    def ready_shards(self, names: Iterable[str]) -> dict[str, Shard | None]:
        """Each shard asked for, None where it is not ready. Raises UnknownShard."""
        try:
            return {name: self.replicas[name].ready_shard() for name in names}
        except KeyError as error:
            raise UnknownShard(f"this node does not hold shard {error.args[0]}") from None

    def shards_ready(self) -> list[Shard]:
        """All shards that may answer."""
        return [shard for r in self.replicas.values() if (shard := r.ready_shard()) is not None]

    def drain(self) -> None:
        for replica in self.replicas.values():
            if replica.state is ReplicaState.READY:
                replica.state = ReplicaState.DRAINING

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
