"""A rolling restart of what `rangefinder up` runs: one process at a time, never one that is needed.

The routers' own metrics say whether every worker of them has a process in use again: only then is the
next one restarted.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rangefinder.cli.up_plan import Config
from rangefinder.cluster_map import ClusterMap
from rangefinder.edge.readiness import ReadinessProbe
from rangefinder.errors import NotReady
from rangefinder.supervised import Supervised
from rangefinder.telemetry.gathered import read_samples
from ranker_service.config import RankerConfig
from router.config import RouterConfig
from shard_server.config import NodeConfig

Tell = Callable[[str], None]

_POLL_S = 0.1

# What a process may take to be in use again: a node loads and checks its shards.
_BACK_S_MAX = 300.0

_STOP_MARGIN_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process of the cluster."""

    config: Config
    supervised: Supervised


async def restart_all(members: Sequence[Member], cluster_map: ClusterMap, tell: Tell) -> None:
    """Restart every process that others can stand in for; tell which ones stay as they are, and why."""
    tell("restarting one process after another")
    try:
        for member in members:
            why_not = why_needed(member.config, [each.config for each in members], cluster_map)
            if why_not:
                tell(f"{member.config.name} is not restarted: {why_not}")
                continue
            await _until_all_in_use(members)
            await _restart(member)
        await _until_all_in_use(members)
    except NotReady as error:
        tell(f"the rolling restart ends here: {error.message}")
        return
    tell("restarted")


def why_needed(config: Config, others: Sequence[Config], cluster_map: ClusterMap) -> str:
    """Why nothing can stand in for a process while it restarts; empty where something can."""
    match config:
        case NodeConfig():
            alone = [
                shard.name
                for shard in cluster_map.serving_shards
                if {replica.node for replica in shard.replicas} == {config.name}
            ]
            return f"nobody else has shard {alone[0]}: start with --replicas 2" if alone else ""
        case RankerConfig():
            is_alone = sum(isinstance(other, RankerConfig) for other in others) == 1
            return "it is the only ranker: start with --rankers 2" if is_alone else ""
        case RouterConfig():
            is_alone = config.workers == 1
            return "it has one worker: start with --router-workers 2" if is_alone else ""


async def _restart(member: Member) -> None:
    """Restart a process and return once it is ready. Raises NotReady."""
    config, asked_s = member.config, time.time()
    if isinstance(config, RouterConfig):
        process = member.supervised.process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGHUP)
        await _until(lambda: _has_only_new(config, asked_s), f"the workers of {config.name} are new")
        return
    await member.supervised.restart(config.drain_s + _STOP_MARGIN_S)
    async with ReadinessProbe(config.listen) as probe:
        await _until(lambda: probe.is_ready(within_s=1.0), f"{config.name} is ready")


async def _until_all_in_use(members: Sequence[Member]) -> None:
    """Return once each worker has every node and every ranker in use. Raises NotReady."""
    routers = [each.config for each in members if isinstance(each.config, RouterConfig)]
    wanted = {
        "rangefinder_nodes_usable": sum(isinstance(each.config, NodeConfig) for each in members),
        "rangefinder_rankers_usable": sum(isinstance(each.config, RankerConfig) for each in members),
    }
    for router in routers:
        for name, count in wanted.items():
            has_all = partial(_has_all, router, name, count)
            await _until(has_all, f"each worker of {router.name} has all in use")


async def _has_all(router: RouterConfig, name: str, count: int) -> bool:
    return [count] * router.workers == await _samples(router, name)


async def _has_only_new(router: RouterConfig, since_s: float) -> bool:
    began_s = await _samples(router, "rangefinder_start_time_seconds")
    return len(began_s) == router.workers and min(began_s) >= since_s


async def _samples(router: RouterConfig, name: str) -> list[float]:
    """Of each worker."""
    assert router.metrics is not None
    return await asyncio.to_thread(read_samples, router.metrics, name)


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    ends_s = time.monotonic() + _BACK_S_MAX
    while not await condition():
        if time.monotonic() > ends_s:
            raise NotReady(f"not within {_BACK_S_MAX:g} s: {what}")
        await asyncio.sleep(_POLL_S)
