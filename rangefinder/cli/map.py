"""`rangefinder map`: the cluster map of a release, for nodes that something else than `up` starts."""

from pathlib import Path

import click

from rangefinder.cli.output import print_line
from rangefinder.cluster_map import Node
from rangefinder.errors import InputRefused
from rangefinder.map_file import map_of_release, write_map
from rangefinder.release import read_manifest

_EXAMPLE = """
\b
Example:
  rangefinder map --release release --nodes 3 --replicas 2 \\
    --name 'node-{index}' --address 'node-{index}.nodes:7100' --out map.json
"""


@click.command(epilog=_EXAMPLE)
@click.option("--release", type=click.Path(path_type=Path), required=True)
@click.option("--nodes", type=click.IntRange(1, 10_000), default=2, show_default=True)
@click.option("--replicas", type=click.IntRange(1, 100), default=1, show_default=True)
@click.option("--name", default="node-{index}", show_default=True, help="Name of each node.")
@click.option("--address", required=True, help="host:port of each node, with {index}.")
@click.option("--cluster", default="rangefinder", show_default=True, help="Name of the cluster.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to be written.")
def command(
    release: Path, nodes: int, replicas: int, name: str, address: str, cluster: str, out: Path
) -> None:
    """Write the map that places a release on nodes. The same arguments give the same map."""
    manifest = read_manifest(release)
    members = tuple(_node(name, address, index) for index in range(nodes))
    cluster_map = map_of_release(manifest, members, replicas, cluster=cluster, epoch=1)
    write_map(out, cluster_map)
    print_line(f"{out}: {len(cluster_map.shards)} shards on {nodes} nodes, {replicas} replicas each")


def _node(name: str, address: str, index: int) -> Node:
    try:
        return Node(name=name.format(index=index), address=address.format(index=index))
    except (LookupError, ValueError, AttributeError, TypeError):
        raise InputRefused("--name and --address: only {index} may stand in braces") from None
