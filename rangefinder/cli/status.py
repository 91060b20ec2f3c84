"""`rangefinder status`: map, nodes and replicas as a router sees them."""

import click
from google.protobuf.json_format import MessageToDict

from rangefinder.cli.connection import ask, asks_a_cluster
from rangefinder.cli.output import print_json, print_line, print_table
from rangefinder.client import Client
from rangefinder.v1 import cluster_pb2

_EXAMPLE = """
\b
Example:
  rangefinder status --address 127.0.0.1:7000 --json
"""

_MIB = 1 << 20


@click.command(epilog=_EXAMPLE)
@asks_a_cluster
def command(address: str, deadline_s: float, as_json: bool) -> None:
    """Show the cluster map, the nodes and the replicas. Exit code 1 where one is not healthy."""

    async def work(
        client: Client,
    ) -> tuple[cluster_pb2.ClusterMap, cluster_pb2.GetClusterStatusResponse]:
        return await client.cluster_map(), await client.cluster_status()

    cluster_map, status = ask(address, deadline_s, work)
    if as_json:
        print_json(
            {
                name: MessageToDict(message, preserving_proto_field_name=True)
                for name, message in (("cluster_map", cluster_map), ("status", status))
            }
        )
    else:
        _show(cluster_map, status)
    health = [node.healthy for node in status.nodes]
    health += [replica.healthy for replica in status.replicas]
    if not all(health):
        raise click.exceptions.Exit(1)


def _show(cluster_map: cluster_pb2.ClusterMap, status: cluster_pb2.GetClusterStatusResponse) -> None:
    items = sum(shard.item_count for shard in cluster_map.shards)
    print_line(
        f"cluster {cluster_map.cluster}, map epoch {cluster_map.epoch}, release"
        f" {cluster_map.active_release}, {items:,} items in {len(cluster_map.shards)} shards"
    )
    addresses = {node.name: node.address for node in cluster_map.nodes}
    print_table(
        "nodes",
        ("node", "address", "healthy", "memory MiB", "version"),
        [
            (
                node.node,
                addresses[node.node],
                _yes(node.healthy),
                node.memory_bytes // _MIB,
                node.software_version,
            )
            for node in status.nodes
        ],
    )
    ranges = {shard.name: (shard.key_start, shard.key_end) for shard in cluster_map.shards}
    print_table(
        "replicas",
        ("shard", "from key", "node", "healthy", "items", "files MiB", "queries/s", "p99 ms", "recall"),
        [
            (
                replica.shard,
                f"{ranges[replica.shard][0]:016x}",
                replica.node,
                _yes(replica.healthy),
                replica.item_count,
                replica.memory_bytes // _MIB,
                replica.query_rate,
                replica.p99_ms,
                f"{replica.probe_recall:.4f}" if replica.HasField("probe_recall") else "-",
            )
            for replica in status.replicas
        ],
    )


def _yes(value: bool) -> str:
    return "yes" if value else "NO"
