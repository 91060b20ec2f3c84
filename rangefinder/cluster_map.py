"""The cluster map: which shards exist, who holds them, which release is active. Pure.

A node's address may change without an epoch; everything else here changes by a new map.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from rangefinder.documents import STRICT, Address, Count, Key, Name, Positive
from rangefinder.errors import InputRefused, ReleaseNotServed, UnknownRelease
from rangefinder.keys import KEY_COUNT, IdKind, Keys
from rangefinder.metric import Metric


class InvalidClusterMap(InputRefused, status="INVALID_ARGUMENT", reason="INVALID_CLUSTER_MAP"): ...


class ShardState(StrEnum):
    BUILDING = "BUILDING"
    SERVING = "SERVING"
    RETIRING = "RETIRING"


class ReplicaState(StrEnum):
    LOADING = "LOADING"
    CATCHING_UP = "CATCHING_UP"
    READY = "READY"
    DRAINING = "DRAINING"


class ReleaseState(StrEnum):
    LOADING = "LOADING"
    SERVED = "SERVED"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRange:
    """Half-open: [key_start, key_end); key_end is at most 2^64."""

    key_start: Key
    key_end: Key

    def holds(self, key: int) -> bool:
        return self.key_start <= key < self.key_end


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One copy of a shard on a node."""

    __pydantic_config__: ClassVar = STRICT

    node: Name
    state: ReplicaState = ReplicaState.READY
    releases: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A range of keys and where its copies are."""

    __pydantic_config__: ClassVar = STRICT

    name: Name
    key_start: Key
    key_end: Key
    state: ShardState = ShardState.SERVING
    replicas: tuple[Replica, ...] = ()
    item_count: Count = 0  # When the map was made: for coverage where no replica ever reported.


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A shard server process."""

    __pydantic_config__: ClassVar = STRICT

    name: Name
    address: Address
    zone: str = ""
    draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What changes together: the embedding space, the index, the ranker."""

    __pydantic_config__: ClassVar = STRICT

    name: Name
    dimension: Positive
    metric: Metric
    created_at_s: float = 0.0  # Seconds since 1970.
    state: ReleaseState = ReleaseState.SERVED
    ranker_model: str = ""  # Empty: nothing ranks.
    ranker_model_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterMap:
    """The owner of every key. Immutable: a change is a new map with a higher epoch."""

    __pydantic_config__: ClassVar = STRICT

    epoch: Positive
    cluster: Name
    id_kind: IdKind
    active_release: Name
    shards: tuple[Shard, ...]  # By key_start, then name; serving ones cover every key once.
    nodes: tuple[Node, ...]
    releases: tuple[Release, ...]

    def __post_init__(self) -> None:
        self._require_exact_cover()
        _require_unique("shard", (shard.name for shard in self.shards))
        _require_unique("node", (node.name for node in self.nodes))
        _require_unique("release", (release.name for release in self.releases))
        known = {node.name for node in self.nodes}
        for shard in self.shards:
            _require_unique(f"replica of {shard.name} on", (r.node for r in shard.replicas))
            if strangers := {replica.node for replica in shard.replicas} - known:
                raise InvalidClusterMap(f"shard {shard.name}: unknown node {min(strangers)}")
        if self.active_release not in {release.name for release in self.releases}:
            raise InvalidClusterMap(f"active release {self.active_release} is not in the map")

    def _require_exact_cover(self) -> None:
        serving = self.serving_shards
        starts = [shard.key_start for shard in serving] + [KEY_COUNT]
        ends = [0] + [shard.key_end for shard in serving]
        if starts != ends or any(s.key_start >= s.key_end for s in serving):
            raise InvalidClusterMap(f"epoch {self.epoch}: keys must be covered exactly once")

    @property
    def serving_shards(self) -> tuple[Shard, ...]:
        """In key order, no gap, no overlap."""
        return tuple(shard for shard in self.shards if shard.state is ShardState.SERVING)

    def release(self, name: str) -> Release:
        """The release of this name, the active one where it is empty.

        Raises UnknownRelease, ReleaseNotServed.
        """
        wanted = name or self.active_release
        for release in self.releases:
            if release.name == wanted:
                if release.state is not ReleaseState.SERVED:
                    raise ReleaseNotServed(f"release {wanted} is {release.state}: ask another")
                return release
        raise UnknownRelease(f"no release {wanted!r}: leave it empty for {self.active_release!r}")

    def shard_places(self, keys: Keys) -> npt.NDArray[np.intp]:
        """Place in serving_shards of the owner of each key; shape of `keys`."""
        starts = np.array([shard.key_start for shard in self.serving_shards], dtype=np.uint64)
        return np.searchsorted(starts, keys, side="right") - 1

    def shards_from(self, key_start: int, key_end: int) -> tuple[Shard, ...]:
        """Serving shards that overlap [key_start, key_end), in key order."""
        serving = self.serving_shards
        first = bisect_right([shard.key_start for shard in serving], key_start) - 1
        return tuple(shard for shard in serving[first:] if shard.key_start < key_end)


def _require_unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidClusterMap(f"{what} {name} stands twice in the map")
        seen.add(name)
