"""ClusterService as far as reading goes: GetClusterMap, GetClusterStatus."""

from collections.abc import Mapping
from functools import partial

from google.protobuf.timestamp_pb2 import Timestamp

from rangefinder.cluster_map import ClusterMap, Release, Shard
from rangefinder.edge.service import Call, Handler, Unary
from rangefinder.errors import RangefinderError
from rangefinder.internal.v1 import node_pb2 as wire
from rangefinder.keys import KEY_COUNT, IdKind
from rangefinder.metric import Metric
from rangefinder.v1 import cluster_pb2 as public
from router.fan_out import fan_out
from router.node_link import NodeLink

_ID_KINDS = {
    IdKind.INTEGER: public.ID_KIND_INTEGER,
    IdKind.ORDERED: public.ID_KIND_ORDERED_INTEGER,
    IdKind.TEXT: public.ID_KIND_TEXT,
}
_METRICS = {
    Metric.INNER_PRODUCT: public.METRIC_INNER_PRODUCT,
    Metric.COSINE: public.METRIC_COSINE,
    Metric.L2: public.METRIC_L2,
}


class ClusterService:
    """RPCs of rangefinder.v1.ClusterService that change nothing."""

    def __init__(self, cluster_map: ClusterMap, links: Mapping[str, NodeLink]) -> None:
        self._map, self._links = cluster_map, links
        self._last: dict[str, wire.GetNodeStatusResponse] = {}

    def handlers(self) -> dict[str, Handler]:
        return {
            "GetClusterMap": Unary(self.get_cluster_map, frozenset()),
            "GetClusterStatus": Unary(self.get_cluster_status, frozenset()),
        }

    async def get_cluster_map(
        self, request: public.GetClusterMapRequest, call: Call
    ) -> public.GetClusterMapResponse:
        """The map that this router serves under."""
        del request, call
        return public.GetClusterMapResponse(cluster_map=map_message(self._map))

    async def get_cluster_status(
        self, request: public.GetClusterStatusRequest, call: Call
    ) -> public.GetClusterStatusResponse:
        """Every node and replica of the map; of one that does not answer, what it last said."""
        del request
        calls = {name: partial(_ask, link) for name, link in self._links.items()}
        outcomes = await fan_out(calls, call.deadline.with_reserve())
        response = public.GetClusterStatusResponse(map_epoch=self._map.epoch)
        for node in self._map.nodes:
            outcome = outcomes[node.name]
            if not isinstance(outcome, RangefinderError):
                self._last[node.name] = outcome
            is_healthy = not isinstance(outcome, RangefinderError)
            known = self._last.get(node.name, wire.GetNodeStatusResponse())
            response.nodes.append(_node_status(node.name, is_healthy, known))
            self._add_replicas(response, node.name, is_healthy, known)
        return response

    def _add_replicas(
        self,
        response: public.GetClusterStatusResponse,
        node: str,
        is_healthy: bool,
        known: wire.GetNodeStatusResponse,
    ) -> None:
        held = {replica.shard: replica for replica in known.replicas}
        for shard in self._map.shards:
            if node not in {replica.node for replica in shard.replicas}:
                continue
            replica = held.get(shard.name, wire.HeldReplica(item_count=shard.item_count))
            is_ready = replica.state == "READY"
            response.replicas.append(
                public.ReplicaStatus(
                    shard=shard.name,
                    node=node,
                    release=self._map.active_release,
                    healthy=is_healthy and is_ready and self._links[node].is_usable,
                    item_count=replica.item_count,
                    memory_bytes=replica.memory_bytes,
                    query_rate=replica.query_rate if is_healthy else 0,
                    p99_ms=replica.p99_ms if is_healthy else 0,
                    probe_recall=replica.probe_recall if replica.HasField("probe_recall") else None,
                )
            )


async def _ask(link: NodeLink, timeout_s: float) -> wire.GetNodeStatusResponse:
    return await link.stub.GetNodeStatus(wire.GetNodeStatusRequest(), timeout=timeout_s)


def _node_status(name: str, is_healthy: bool, known: wire.GetNodeStatusResponse) -> public.NodeStatus:
    return public.NodeStatus(
        node=name,
        healthy=is_healthy,
        memory_bytes=known.memory_bytes,
        memory_limit_bytes=known.memory_limit_bytes,
        software_version=known.software_version,
        start_time=known.start_time if known.HasField("start_time") else None,
    )


def map_message(cluster_map: ClusterMap) -> public.ClusterMap:
    """The map as the public API shows it."""
    return public.ClusterMap(
        epoch=cluster_map.epoch,
        cluster=cluster_map.cluster,
        shards=(_shard_message(shard) for shard in cluster_map.shards),
        nodes=(
            public.Node(name=node.name, address=node.address, zone=node.zone, draining=node.draining)
            for node in cluster_map.nodes
        ),
        releases=(_release_message(release) for release in cluster_map.releases),
        active_release=cluster_map.active_release,
        id_kind=_ID_KINDS[cluster_map.id_kind],
    )


def _shard_message(shard: Shard) -> public.Shard:
    return public.Shard(
        name=shard.name,
        key_start=shard.key_start,
        key_end=shard.key_end % KEY_COUNT,
        state=public.ShardState.Value(f"SHARD_STATE_{shard.state}"),
        replicas=(
            public.Replica(
                node=replica.node,
                state=public.ReplicaState.Value(f"REPLICA_STATE_{replica.state}"),
                releases=replica.releases,
            )
            for replica in shard.replicas
        ),
        item_count=shard.item_count,
    )


def _release_message(release: Release) -> public.Release:
    created = Timestamp()
    created.FromMilliseconds(int(release.created_at_s * 1000))
    return public.Release(
        name=release.name,
        dimension=release.dimension,
        metric=_METRICS[release.metric],
        ranker_model=release.ranker_model,
        ranker_model_version=release.ranker_model_version,
        create_time=created,
        state=public.ReleaseState.Value(f"RELEASE_STATE_{release.state}"),
    )
