"""Load through the fault of a node: what callers notice, a tenth of a second at a time."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import product

from rangefinder.cli.bench.cluster import Cluster, ClusterOrder
from rangefinder.cli.bench.fault_proxy import NO_FAULT, LinkFault
from rangefinder.cli.bench.links import Links, links_to, router_behind, search_ports
from rangefinder.cli.bench.lists import FaultKind
from rangefinder.cli.bench.loads import Window, late_ms
from rangefinder.cli.bench.measure import Bench
from rangefinder.cli.bench.router_metrics import RouterMetrics
from rangefinder.cli.bench.schedule import bins
from rangefinder.cli.bench.timeline import Timeline
from rangefinder.cli.bench.trials import Fault
from rangefinder.cli.up_plan import map_file_of
from rangefinder.map_file import read_map

BIN_S = 0.1

# By then a router has turned away from a slow node; what is usual from then on is judged.
SETTLED_S = 3.0

BEFORE, SETTLING, SETTLED = "before", "its first seconds", "from its third second on"
_AFTER = "after"

# Enough to see what is usual, and that it comes back; no longer than the fault itself.
_BEFORE_S_MAX, _AFTER_S_MAX = 2.0, 3.0

_LOOK_S = 0.05

_OF_LINE = {
    FaultKind.SLOW: LinkFault(delay_s=0.1),  # Of 200 ms, half is on the way back.
    FaultKind.BLACKHOLE: LinkFault(is_black_hole=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultOrder:
    """What is to happen to the nodes of a cluster."""

    kinds: Sequence[FaultKind]
    cluster: ClusterOrder
    rate: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where faults happen: a cluster that holds everything several times."""

    bench: Bench
    order: FaultOrder
    metrics: RouterMetrics
    links: Links | None

    @property
    def cluster(self) -> Cluster:
        return self.bench.cluster


async def through_faults(
    bench: Bench, order: FaultOrder, advance: Callable[[int], None]
) -> list[Fault]:
    """An open loop through each kind of fault, as often as there are runs; nodes take turns."""
    found: list[Fault] = []
    async with _with_links(bench, order) as place:
        for run, kind in product(range(bench.plan.runs), order.kinds):
            node = f"node-{len(found) % order.cluster.node_count}"
            await place.cluster.until_well()
            found.append(await _through(place, kind, node, run))
            advance(1)
    return found


@asynccontextmanager
async def _with_links(bench: Bench, order: FaultOrder) -> AsyncIterator[_Place]:
    """The cluster, behind proxies where a line is to be at fault."""
    cluster, links = bench.cluster, None
    async with AsyncExitStack() as stack:
        if any(kind.is_of_line for kind in order.kinds):
            assert cluster.data_dir is not None
            cluster_map = read_map(map_file_of(cluster.data_dir))
            links = await stack.enter_async_context(
                links_to(cluster_map, search_ports(cluster.data_dir))
            )
            cluster = await stack.enter_async_context(router_behind(links, cluster))
        metrics = cluster.metrics()
        assert metrics is not None
        yield _Place(bench=bench.at(cluster), order=order, metrics=metrics, links=links)


async def _through(place: _Place, kind: FaultKind, node: str, run: int) -> Fault:
    """An open loop, while a node is at fault for a while."""
    bench, order = place.bench, place.order
    before_s, after_s = min(order.seconds, _BEFORE_S_MAX), min(order.seconds, _AFTER_S_MAX)
    window = Window.soon(before_s + order.seconds + after_s)
    begin_s = window.begin_s + before_s
    timeline = Timeline(window, place.metrics)
    async with bench.loads.making(bench.asked, window, rate=order.rate) as made:
        await timeline.begin(BEFORE, window.begin_s)
        await timeline.begin(SETTLING, begin_s)
        delay_s = await place.metrics.hedge_delay_s()
        left_out_s = await _while_at_fault(place, kind, node, timeline)
        await timeline.begin(_AFTER, begin_s + order.seconds)
        await timeline.end()
        samples = (await made).due_within(window.begin_s, window.end_s)
    return Fault(
        run=run,
        kind=kind,
        node=node,
        nodes=order.cluster.node_count,
        replicas=order.cluster.replica_count,
        rate=order.rate,
        begin_s=before_s,
        end_s=before_s + order.seconds,
        messages=len(samples.due_s),
        failed=samples.failed,
        failures=samples.failures,
        hedge_delay_s=delay_s,
        left_out_after_s=left_out_s,
        sent_late_ms=late_ms(samples),
        spans=timeline.spans(samples),
        bins=bins(samples, window.begin_s, window.end_s, BIN_S),
    )


async def _while_at_fault(
    place: _Place, kind: FaultKind, node: str, timeline: Timeline
) -> float | None:
    """Let it last; returns when no router used the node any more, None where that was not seen."""
    with _at_fault(place, kind, node):
        begin_s = time.monotonic()
        seconds = place.order.seconds
        left_out_s = None
        if kind is not FaultKind.SLOW:  # Who is merely slow is used less, and looking has its price.
            left_out_s = await _left_out_after(place, begin_s, min(seconds, SETTLED_S))
        if seconds > SETTLED_S:
            await timeline.begin(SETTLED, begin_s + SETTLED_S)
        await asyncio.sleep(begin_s + seconds - time.monotonic())
    return left_out_s


async def _left_out_after(place: _Place, begin_s: float, seconds: float) -> float | None:
    """Look until a node is left out."""
    while (passed_s := time.monotonic() - begin_s) < seconds:
        usable = await place.metrics.nodes_usable()
        if usable is not None and usable < place.order.cluster.node_count:
            return passed_s
        await asyncio.sleep(_LOOK_S)
    return None


@contextmanager
def _at_fault(place: _Place, kind: FaultKind, node: str) -> Iterator[None]:
    """A node is at fault until the block ends; what was killed is started again by `up`."""
    if kind.is_of_line:
        assert place.links is not None, "there is a fault of lines"
        place.links.set_fault(node, _OF_LINE[kind])
        try:
            yield
        finally:
            place.links.set_fault(node, NO_FAULT)
        return
    pid = place.cluster.pid(node)
    os.kill(pid, signal.SIGKILL if kind is FaultKind.KILL else signal.SIGSTOP)
    try:
        yield
    finally:
        if kind is FaultKind.STOP:
            os.kill(pid, signal.SIGCONT)
