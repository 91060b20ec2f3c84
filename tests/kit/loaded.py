"""A release as a node loads it, searched without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rangefinder.release import ReleaseManifest, read_manifest
from shard_server.replica import Replica
from shard_server.segment import Search
from shard_server.shard import Shard, load_probes, search_shards


@dataclass(frozen=True, slots=True)
class LoadedRelease:
    """All shards of a release."""

    manifest: ReleaseManifest
    shards: Sequence[Shard]

    def search(
        self, query: npt.NDArray[np.float32], item_count: int, *, exact: bool
    ) -> list[tuple[int, float]]:
        """(key, score) of the best items."""
        wanted = np.array([item_count])
        hits = search_shards(self.shards, Search(queries=query[None], wanted=wanted, exact=exact))
        count = int(hits.counts[0])
        return list(zip(hits.keys[0, :count].tolist(), hits.scores[0, :count].tolist(), strict=True))


def load(root: Path) -> LoadedRelease:
    """Load every shard, as a node that holds them all does when it starts. Raises ReleaseDamaged."""
    manifest = read_manifest(root)
    probes = load_probes(root, manifest)
    shards = []
    for about in manifest.shards:
        replica = Replica(about=about, release=manifest.name)
        replica.load(root, manifest, probes)
        shard = replica.ready_shard()
        assert shard is not None
        shards.append(shard)
    return LoadedRelease(manifest, shards)
