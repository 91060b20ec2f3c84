"""One run of `rangefinder bench`: what is started, what is measured, what comes of it."""

import contextlib
import os
import platform
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path

from rangefinder.cli.bench.calls import Asked
from rangefinder.cli.bench.cluster import Cluster, ClusterOrder, cluster_of, started
from rangefinder.cli.bench.echo import running_echo
from rangefinder.cli.bench.fault import FaultOrder, through_faults
from rangefinder.cli.bench.figures import (
    FORMAT,
    JUDGED_IN_FLIGHT,
    Figures,
    Load,
    Machine,
    Setting,
    Width,
)
from rangefinder.cli.bench.links import require_proxies
from rangefinder.cli.bench.lists import FaultKind, Mode, Rate
from rangefinder.cli.bench.loads import Loads
from rangefinder.cli.bench.measure import Bench, Plan
from rangefinder.cli.bench.overload import OverloadOrder, through_overloads
from rangefinder.cli.bench.recall import Recall
from rangefinder.cli.bench.subject import Subject
from rangefinder.cli.bench.workers import workers
from rangefinder.client import Client
from rangefinder.errors import InputRefused, ReplicaUnavailable
from rangefinder.storage import read_text
from rangefinder.width import step_for
from router.batch import BATCH_ITEMS_MAX

RECALL_TARGET = 0.97
_DEADLINE_S = 10.0
_LIBRARIES = ("rangefinder", "grpcio", "protobuf", "numpy", "hnswlib", "uvloop")

# A fault meets half of the load that the cluster can bear.
_FAULT_SHARE = 0.5

# One can be lost, and one slow beside it.
_TRIAL_REPLICAS = 3

Tell = Callable[[str, int], None]  # A stage, and the steps it has.


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the options say."""

    plan: Plan
    node_count: int
    replica_count: int
    router_workers: int
    address: str | None
    data_dir: Path | None  # Of the `up` at the address.
    item_count: int
    width: int  # 0: the narrowest that holds the target.
    deadline_s: float
    rates: Sequence[Rate]
    faults: Sequence[FaultKind]
    fault_s: float
    overload_s: float  # 0: none.
    generators: int
    connections: int  # Of each generator.
    has_curve: bool
    seed: int

    def require_consistent(self) -> None:
        """Raises InputRefused for what would fail after minutes, or could not be obeyed."""
        if self.replica_count > self.node_count:
            raise InputRefused(f"--replicas {self.replica_count} need as many --nodes")
        if 0 < self.width < self.item_count:
            raise InputRefused(f"--width {self.width} holds no {self.item_count} items")
        if self.plan.queries_per_message * self.item_count > BATCH_ITEMS_MAX:
            raise InputRefused(f"--batch times --item-count is over {BATCH_ITEMS_MAX:,}")
        if self.address is not None and (self.faults or self.overload_s):
            raise InputRefused("--fault and --overload need a cluster of its own: not with --address")
        if any(kind.is_of_line for kind in self.faults):
            require_proxies()
        if Mode.UNARY in self.plan.modes:
            return
        if self.faults or self.overload_s or any(rate.is_share for rate in self.rates):
            raise InputRefused(
                "--fault, --overload and shares in --rates are of the peak of unary: add it to --modes"
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """Told of a stage and its steps, then of each step done."""

    begin: Tell
    advance: Callable[[int], None]


async def run(order: Order, subject: Subject, folder: Path, progress: Progress) -> Figures:
    """Measure it all. Raises RangefinderError."""
    async with (
        _cluster(order, subject, folder) as cluster,
        Client(cluster.address, deadline_s=_DEADLINE_S) as client,
    ):
        await _require_served(client, subject, cluster.address)
        progress.begin("finding the width", 1)
        recall = await Recall.against_exact(client, subject.queries, order.item_count)
        width, found = await _width(recall, order)
        progress.advance(1)
        blank = _blank(order, subject, width, found)
        async with _bench(order, subject, cluster, width) as bench:
            figures = await _closed(bench, progress, blank)
            if order.has_curve:
                figures = replace(figures, widths=await _widths(bench, recall, progress))
            figures = replace(figures, open=await _open(bench, order, figures, progress))
            return await _trials(bench, order, folder, figures, progress)


@asynccontextmanager
async def _bench(order: Order, subject: Subject, cluster: Cluster, width: int) -> AsyncIterator[Bench]:
    """The processes that measure, and what they are told."""
    with workers(order.generators) as generators, workers(core_count()) as searchers:
        async with running_echo() as echo:
            yield Bench(
                plan=order.plan,
                cluster=cluster,
                echo=echo,
                loads=Loads(generators, order.plan.seconds),
                searchers=searchers,
                release=subject.path,
                asked=_asked(order, subject, cluster, width),
            )


def core_count() -> int:
    return len(os.sched_getaffinity(0))


@asynccontextmanager
async def _cluster(order: Order, subject: Subject, folder: Path) -> AsyncIterator[Cluster]:
    if order.address is not None:
        yield cluster_of(order.address, order.data_dir)
        return
    wanted = ClusterOrder(
        release=subject.path,
        node_count=order.node_count,
        replica_count=order.replica_count,
        router_workers=order.router_workers,
    )
    async with started(wanted, folder) as cluster:
        yield cluster


async def _require_served(client: Client, subject: Subject, address: str) -> None:
    try:
        cluster_map = await client.cluster_map()
    except ReplicaUnavailable as error:
        raise InputRefused(f"{address} does not answer ({error.message})") from None
    items = sum(shard.item_count for shard in cluster_map.shards)
    served, ours = (
        (cluster_map.active_release, items),
        (subject.manifest.name, subject.manifest.item_count),
    )
    if served != ours:
        raise InputRefused(
            f"{address} serves release {served[0]} of {served[1]:,} items,"
            f" not {ours[0]} of {ours[1]:,}: give the --release that it serves"
        )


async def _width(recall: Recall, order: Order) -> tuple[int, float]:
    if order.width:
        width = step_for(order.width)
        return width, await recall.at(width)
    return await recall.narrowest(RECALL_TARGET)


def _asked(order: Order, subject: Subject, cluster: Cluster, width: int) -> Asked:
    return Asked(
        address=cluster.address,
        mode=Mode.UNARY,
        queries=subject.queries,
        queries_per_message=order.plan.queries_per_message,
        item_count=order.item_count,
        width=width,
        deadline_s=order.deadline_s,
        connections=order.connections,
    )


def _blank(order: Order, subject: Subject, width: int, recall: float) -> Figures:
    """Everything but what takes time."""
    manifest, plan = subject.manifest, order.plan
    setting = Setting(
        release=manifest.name,
        catalogue=subject.catalogue,
        items=manifest.item_count,
        dimension=manifest.dimension,
        metric=manifest.metric.value,
        shards=len(manifest.shards),
        nodes=order.node_count,
        replicas=order.replica_count,
        router_workers=order.router_workers,
        address=order.address,
        queries=len(subject.queries),
        seed=order.seed,
        item_count=order.item_count,
        width=width,
        queries_per_message=plan.queries_per_message,
        seconds=plan.seconds,
        runs=plan.runs,
        generators=order.generators,
        connections=order.connections,
    )
    return Figures(
        format=FORMAT,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=_machine(),
        setting=setting,
        recall=recall,
        recall_target=RECALL_TARGET,
        echoes=[],
        paced=[],
        kernels=[],
        closed=[],
        open=[],
        widths=[],
        overloads=[],
        faults=[],
    )


def _machine() -> Machine:
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(InputRefused):
        lines = read_text(Path("/proc/cpuinfo")).splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    return Machine(
        processor=processor,
        cores=core_count(),
        system=f"{platform.system()} {platform.release()}",
        versions={"python": platform.python_version(), **{each: version(each) for each in _LIBRARIES}},
    )


async def _closed(bench: Bench, progress: Progress, figures: Figures) -> Figures:
    """Echo, kernel and every closed loop in turn, as often as there are runs."""
    plan = bench.plan
    cells = list(product(plan.modes, plan.in_flight))
    progress.begin("loading indexes into memory", 1)
    await bench.load_kernel()
    progress.begin("closed loops", plan.runs * (len(cells) + len(plan.in_flight) + 1))
    for number in range(plan.runs):
        for in_flight in plan.in_flight:
            figures.echoes.append(await bench.echoes(number, in_flight))
            progress.advance(1)
        figures.kernels.append(await bench.kernel(number))
        progress.advance(1)
        for mode, in_flight in cells:
            load = await bench.closed(number, mode, in_flight)
            figures.closed.append(load)
            if (mode, in_flight) == (Mode.UNARY, JUDGED_IN_FLIGHT) and load.queries_per_s:
                figures.paced.append(await bench.echoes(number, 0, load.queries_per_s))
            progress.advance(1)
    return figures


async def _widths(bench: Bench, recall: Recall, progress: Progress) -> list[Width]:
    progress.begin("recall against throughput", 1)
    curve = await bench.curve(recall)
    progress.advance(1)
    return curve


async def _open(bench: Bench, order: Order, figures: Figures, progress: Progress) -> list[Load]:
    peak = figures.peak()
    rates = [rate.at(peak or 0) for rate in order.rates if peak or not rate.is_share]
    progress.begin("open loops", bench.plan.runs * len(rates))
    loads = []
    for number, rate in product(range(bench.plan.runs), rates):
        loads.append(await bench.open(number, rate))
        progress.advance(1)
    return loads


async def _trials(
    bench: Bench, order: Order, folder: Path, figures: Figures, progress: Progress
) -> Figures:
    """Too much is asked, or a node is at fault: of a cluster that holds everything several times."""
    peak = figures.peak()
    if not peak or not (order.faults or order.overload_s):
        return figures
    replicas = max(order.replica_count, _TRIAL_REPLICAS)
    wanted = ClusterOrder(
        release=bench.release,
        node_count=max(order.node_count, replicas),
        replica_count=replicas,
        router_workers=order.router_workers,
    )
    async with started(wanted, folder) as cluster:
        bench = bench.at(cluster)
        if order.overload_s:
            overload = OverloadOrder(seconds=order.overload_s, peak_in_flight=figures.peak_in_flight())
            progress.begin("through overload", order.plan.runs)
            overloads = await through_overloads(bench, overload, progress.advance)
            figures = replace(figures, overloads=overloads)
        if order.faults:
            faults = FaultOrder(
                kinds=order.faults, cluster=wanted, rate=peak * _FAULT_SHARE, seconds=order.fault_s
            )
            progress.begin("through faults", order.plan.runs * len(order.faults))
            figures = replace(figures, faults=await through_faults(bench, faults, progress.advance))
    return figures
