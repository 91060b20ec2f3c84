"""The cluster map as one JSON file, replaced atomically, and the map of a release just built."""

from pathlib import Path

from rangefinder.cluster_map import ClusterMap, Node, Release, Replica, Shard
from rangefinder.documents import from_json, to_json
from rangefinder.errors import InputRefused
from rangefinder.release import ReleaseManifest
from rangefinder.storage import read_text, write_text


def read_map(path: Path) -> ClusterMap:
    """Raises InputRefused, naming the file, where it is no cluster map."""
    return from_json(read_text(path), ClusterMap, str(path))


def write_map(path: Path, cluster_map: ClusterMap) -> None:
    """Replace the file atomically and durably. Raises InputRefused for a map that no one could read."""
    text = to_json(cluster_map)
    from_json(text, ClusterMap, str(path))
    write_text(path, text)


def map_of_release(
    manifest: ReleaseManifest, nodes: tuple[Node, ...], replica_count: int, *, cluster: str, epoch: int
) -> ClusterMap:
    """Place the shards of a release on nodes, replicas of a shard on different ones.

    Shard i goes to node i and the ones after it, in turn: the same release and nodes give the same
    map. Raises InputRefused where there are fewer nodes than replicas.
    """
    if replica_count > len(nodes):
        raise InputRefused(f"{replica_count} replicas need as many nodes: {len(nodes)} is too few")
    shards = tuple(
        Shard(
            name=shard.name,
            key_start=shard.key_start,
            key_end=shard.key_end,
            item_count=shard.item_count,
            replicas=tuple(
                Replica(node=nodes[(place + copy) % len(nodes)].name, releases=(manifest.name,))
                for copy in range(replica_count)
            ),
        )
        for place, shard in enumerate(manifest.shards)
    )
    return ClusterMap(
        epoch=epoch,
        cluster=cluster,
        id_kind=manifest.id_kind,
        active_release=manifest.name,
        shards=shards,
        nodes=nodes,
        releases=(
            Release(
                name=manifest.name,
                dimension=manifest.dimension,
                metric=manifest.metric,
                created_at_s=manifest.created_at_s,
                ranker_model=manifest.ranker.model if manifest.ranker else "",
                ranker_model_version=manifest.ranker.version if manifest.ranker else "",
            ),
        ),
    )
