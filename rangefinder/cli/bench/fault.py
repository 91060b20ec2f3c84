"""Load through the loss of a node: what callers notice, a tenth of a second at a time."""

import asyncio
import os
import signal
import time
from enum import StrEnum

from rangefinder.cli.bench.cluster import Cluster, ClusterOrder
from rangefinder.cli.bench.figures import Fault
from rangefinder.cli.bench.loads import Window
from rangefinder.cli.bench.measure import Bench
from rangefinder.cli.bench.schedule import bins

BIN_S = 0.1

# Enough to see what is usual, and that it comes back; no longer than the fault itself.
_BEFORE_S_MAX, _AFTER_S_MAX = 2.0, 3.0


class FaultKind(StrEnum):
    """What happens to the node."""

    NONE = "none"
    STOP = "stop"  # It is there, and does nothing: SIGSTOP, then SIGCONT.
    KILL = "kill"  # It is gone, and `up` starts another one.


async def through_fault(
    bench: Bench, order: ClusterOrder, kind: FaultKind, rate: float, fault_s: float
) -> Fault:
    """An open loop, while the last node is lost for a while."""
    node = f"node-{order.node_count - 1}"
    before_s, after_s = min(fault_s, _BEFORE_S_MAX), min(fault_s, _AFTER_S_MAX)
    window = Window.soon(before_s + fault_s + after_s)
    async with bench.loads.making(bench.asked, window, rate=rate) as made:
        await asyncio.sleep(window.begin_s + before_s - time.monotonic())
        begin_s = time.monotonic()
        await _lose(bench.cluster, node, kind, fault_s)
        end_s = time.monotonic()
        samples = (await made).due_within(window.begin_s, window.end_s)
    return Fault(
        kind=kind,
        node=node,
        nodes=order.node_count,
        replicas=order.replica_count,
        rate=rate,
        begin_s=begin_s - window.begin_s,
        end_s=end_s - window.begin_s,
        messages=len(samples.due_s),
        failed=samples.failed,
        failures=dict(samples.failures),
        bins=bins(samples, window.begin_s, window.end_s, BIN_S),
    )


async def _lose(cluster: Cluster, node: str, kind: FaultKind, fault_s: float) -> None:
    pid = cluster.pid(node)
    if kind is FaultKind.KILL:
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(fault_s)
        return
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(fault_s)
    finally:
        os.kill(pid, signal.SIGCONT)
