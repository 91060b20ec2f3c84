"""A node of `rangefinder up` killed and kept from coming back, for as long as something is measured.

The process is ended by SIGKILL. `up` starts another one after a while: that one is stopped by SIGSTOP
as it appears, long before it serves, and let go at the end. So the node is as dead as a lost machine
for the whole time, and back within seconds, whatever the delay of the next restart would have been.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rangefinder.cli.up_plan import map_file_of
from rangefinder.client import Client
from rangefinder.cluster_map import ClusterMap
from rangefinder.errors import InputRefused, NotReady, RangefinderError
from rangefinder.map_file import read_map

_POLL_S = 0.02
_CHANGE_S_MAX = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNode:
    """A node that can be killed: a process of a data directory."""

    name: str
    pid_file: Path
    coverage_without: float  # Share of the items that other nodes hold, by the map.


def known_node(data_dir: Path, name: str, cluster: str, epoch: int) -> KnownNode:
    """A node of the cluster of that name and epoch. Raises InputRefused where it is not there."""
    path = map_file_of(data_dir)
    if not path.is_file():
        raise InputRefused(f"--data-dir {data_dir}: no map/map.json: not a folder of `rangefinder up`")
    cluster_map = read_map(path)
    if (cluster_map.cluster, cluster_map.epoch) != (cluster, epoch):
        raise InputRefused(f"--data-dir {data_dir}: not of the cluster that answers at --address")
    names = [node.name for node in cluster_map.nodes]
    if name not in names:
        raise InputRefused(f"--kill-node {name}: no such node: there are {', '.join(names)}")
    pid_file = data_dir / "run" / f"{name}.pid"
    if not pid_file.is_file():
        raise InputRefused(f"--kill-node {name}: it does not run: {pid_file} is missing")
    return KnownNode(
        name=name, pid_file=pid_file, coverage_without=_coverage_without(name, cluster_map)
    )


def _coverage_without(name: str, cluster_map: ClusterMap) -> float:
    shards = cluster_map.shards
    left = [
        shard.item_count for shard in shards if any(replica.node != name for replica in shard.replicas)
    ]
    return sum(left) / max(sum(shard.item_count for shard in shards), 1)


@asynccontextmanager
async def node_killed(client: Client, node: KnownNode) -> AsyncIterator[None]:
    """Within the block the node is dead and the router knows; after it the cluster is whole again."""
    _signal(node.pid_file, signal.SIGKILL)
    holding = asyncio.create_task(_hold_successors(node.pid_file), name=f"hold-{node.name}")
    try:
        await _until_health_is(client, node.name, False)
        yield
    finally:
        holding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await holding
        _signal(node.pid_file, signal.SIGCONT)
    await _until_health_is(client, node.name, True)


async def _hold_successors(pid_file: Path) -> None:
    """Stop whatever process the file names, as soon as it does."""
    while True:
        _signal(pid_file, signal.SIGSTOP)
        await asyncio.sleep(_POLL_S)


def _signal(pid_file: Path, number: signal.Signals) -> None:
    """Nothing where there is no process now."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(pid_file.read_text(encoding="utf-8")), number)


async def _until_health_is(client: Client, name: str, healthy: bool) -> None:
    """Raises NotReady where it does not become so in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CHANGE_S_MAX):
            while True:
                with contextlib.suppress(RangefinderError):
                    status = await client.cluster_status()
                    held = [each.healthy for each in status.replicas if each.node == name]
                    if held == [healthy] * len(held):
                        return
                await asyncio.sleep(_POLL_S)
    what = "come back" if healthy else "go away"
    raise NotReady(f"{name} did not {what} within {_CHANGE_S_MAX:g} s")
