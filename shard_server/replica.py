"""A replica's life on a node: loading, the check by probes, then answering."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from rangefinder.cluster_map import ReplicaState
from rangefinder.errors import ReleaseDamaged
from rangefinder.release import ReleaseManifest, ReleaseShard
from rangefinder.telemetry.recent import RecentDurations
from shard_server.scoring import Rows
from shard_server.shard import Shard, probe_recall


@dataclass(slots=True, kw_only=True)
class Replica:
    """One copy of a shard on this node; `shard` is there once it is READY."""

    about: ReleaseShard
    release: str
    state: ReplicaState = ReplicaState.LOADING
    shard: Shard | None = None
    probe_recall: float | None = None
    load_s: float = 0.0
    durations: RecentDurations = field(default_factory=RecentDurations)

    @property
    def name(self) -> str:
        return self.about.name

    def load(self, root: Path, manifest: ReleaseManifest, probes: Rows) -> None:
        """Verify, map and probe the shard; blocks, for a thread. Raises ReleaseDamaged."""
        began_s = time.monotonic()
        shard = Shard.open(root, manifest, self.about)
        self.probe_recall = probe_recall(shard, probes)
        self.load_s = time.monotonic() - began_s
        if self.probe_recall < manifest.recall_target:
            raise ReleaseDamaged(
                f"{root}: shard {self.name}: recall {self.probe_recall:.4f} on its probes is under"
                f" the target of {manifest.recall_target}: build the release again"
            )
        self.shard = shard
        self.state = ReplicaState.READY

    def ready_shard(self) -> Shard | None:
        """The shard, where it may answer: also while draining."""
        return self.shard if self.state in (ReplicaState.READY, ReplicaState.DRAINING) else None
