"""Figures for people: tables, medians, and what they should be."""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from rangefinder.cli.bench.fault_report import fault_verdicts, show_faults
from rangefinder.cli.bench.figures import JUDGED_IN_FLIGHT, Cpu, Figures, Kernel, Load
from rangefinder.cli.bench.lists import Mode
from rangefinder.cli.bench.overload_report import overload_verdicts, show_overload
from rangefinder.cli.bench.schedule import Latency
from rangefinder.cli.bench.verdict import NOTHING, Cell, Verdict, cell, median_of
from rangefinder.cli.output import print_line, print_table


def show(figures: Figures) -> None:
    """Print every table, the yardsticks first."""
    _show_setting(figures)
    _show_echoes(figures)
    _show_kernel(figures.kernels)
    _show_closed(figures)
    if figures.widths:
        rows = [(each.width, each.recall, round(each.queries_per_s)) for each in figures.widths]
        print_table("recall against throughput (batches)", ("width", "recall", "queries/s"), rows)
    if figures.open:
        _show_open(figures)
    show_overload(figures)
    show_faults(figures)
    print_table(
        f"targets, medians of {figures.setting.runs} runs",
        ("measured", "value", "target", "met"),
        [each.row() for each in verdicts(figures)],
    )


def _show_setting(figures: Figures) -> None:
    setting, machine = figures.setting, figures.machine
    where = setting.address or f"{setting.nodes} nodes, {setting.replicas} replicas"
    print_line(
        f"{setting.catalogue}: {setting.items:,} x {setting.dimension} ({setting.metric}),"
        f" {setting.shards} shards, {where}; {machine.cores} cores of {machine.processor}"
    )
    print_line(
        f"recall@{setting.item_count} {figures.recall:.4f} at width {setting.width}, against exact"
        f" answers to {setting.queries:,} queries; {setting.runs} runs of {setting.seconds:g} s each"
    )


def _show_echoes(figures: Figures) -> None:
    in_flight = list(dict.fromkeys(each.in_flight for each in figures.echoes))
    rows = [
        (
            count,
            round(median(each.calls_per_s for each in figures.echo(count))),
            *_latency_cells([each.latency for each in figures.echo(count)]),
            median(each.server_cpu_us for each in figures.echo(count)),
        )
        for count in in_flight
    ]
    columns = ("in flight", "calls/s", *_LATENCY_COLUMNS, "server CPU us")
    print_table("echo: an empty unary grpc.aio call, ms", columns, rows)


def _show_kernel(kernels: Sequence[Kernel]) -> None:
    rows = [
        (
            "the index alone",
            median(each.index_us for each in kernels),
            round(median(each.index_queries_per_s for each in kernels)),
        ),
        (
            "with scores and merge",
            median(each.scored_us for each in kernels),
            round(median(each.scored_queries_per_s for each in kernels)),
        ),
    ]
    title = f"kernel: the same indexes in {kernels[0].processes} processes, without any network"
    print_table(title, ("searched", "CPU us/query", "queries/s"), rows)


def _show_closed(figures: Figures) -> None:
    rows = [
        (
            str(mode),
            in_flight,
            *_load_cells(figures.load(mode, in_flight)),
            *_cpu_cells(figures.load(mode, in_flight)),
            _ratio_cell(figures.load(mode, in_flight), figures.kernels),
            sum(each.failed for each in figures.load(mode, in_flight)),
            sum(each.partial for each in figures.load(mode, in_flight)),
        )
        for mode, in_flight in figures.cells()
    ]
    columns = ("mode", "flight", "queries/s", *_LATENCY_COLUMNS, *_CPU_COLUMNS)
    size = figures.setting.queries_per_message
    print_table(
        f"closed loop, ms; {size} queries a message in batch and stream; CPU us a query",
        (*columns, "/kernel", "failed", "partial"),
        rows,
    )


def _show_open(figures: Figures) -> None:
    rows = []
    for rate in figures.rates():
        loads = [each for each in figures.open if each.rate == rate]
        rows.append(
            (
                round(rate),
                *_load_cells(loads),
                *_cpu_cells(loads),
                median(each.sent_late_ms for each in loads),
                sum(each.failed for each in loads),
                sum(each.partial for each in loads),
            )
        )
    columns = ("rate", "achieved/s", *_LATENCY_COLUMNS, *_CPU_COLUMNS, "late p99", "failed")
    print_table(
        "open loop, unary, ms from when each was due; CPU us a query", (*columns, "partial"), rows
    )


def verdicts(figures: Figures) -> list[Verdict]:
    """What there are targets for, as far as it was measured."""
    found = [
        Verdict(
            what=f"recall@{figures.setting.item_count}",
            value=figures.recall,
            bound=figures.recall_target,
            is_at_most=False,
        )
    ]
    for mode in (Mode.BATCH, Mode.STREAM):
        ratios = {
            in_flight: ratio
            for each, in_flight in figures.cells()
            if each is mode
            and (ratio := ratio_to_kernel(figures.load(mode, in_flight), figures.kernels)) is not None
        }
        if ratios:
            best = min(ratios, key=lambda in_flight: ratios[in_flight])
            what = f"{mode}: server CPU / kernel, {best} in flight (the best)"
            found.append(Verdict(what=what, value=ratios[best], bound=1.3))
    over = unary_over_kernel(figures)
    if over is not None:
        what = f"unary, {JUDGED_IN_FLIGHT} in flight: (server CPU - kernel) / as many empty calls"
        found.append(Verdict(what=what, value=over, bound=2.5))
    alone = one_in_flight(figures)
    if alone is not None:
        what = "unary, one in flight: p50 / that of an empty call"
        found.append(Verdict(what=what, value=alone, bound=3.5))
    return [*found, *overload_verdicts(figures), *fault_verdicts(figures)]


def ratio_to_kernel(loads: Sequence[Load], kernels: Sequence[Kernel]) -> float | None:
    """CPU of all servers for each query, in units of the index alone: median of each run's ratio."""
    return median_of(
        None if load.cpu is None else load.cpu.total / kernel.index_us
        for load, kernel in zip(loads, kernels, strict=True)
    )


def unary_over_kernel(figures: Figures) -> float | None:
    """What a unary call costs beside the search, in units of what an empty one costs its server.

    At the same load, so many calls a second: the busier a server is, the less each call wakes it up.
    """
    loads, echoes = figures.load(Mode.UNARY, JUDGED_IN_FLIGHT), figures.paced
    if not loads or len(loads) != len(echoes):
        return None
    return median_of(
        None if load.cpu is None else (load.cpu.total - kernel.index_us) / echo.server_cpu_us
        for load, kernel, echo in zip(loads, figures.kernels, echoes, strict=True)
    )


def one_in_flight(figures: Figures) -> float | None:
    """p50 of a unary call in units of that of an empty one."""
    loads = figures.load(Mode.UNARY, 1)
    return median_of(
        None if load.latency is None else load.latency.p50 / echo.latency.p50
        for load, echo in zip(loads, figures.echo(1) if loads else [], strict=True)
    )


def compare(before: Figures, after: Figures) -> None:
    """Print what has changed, as ratios."""
    rows = [
        (what, old, new, new / old if old else math.nan) for what, old, new in changes(before, after)
    ]
    print_table(f"against {before.made_at}", ("measured", "then", "now", "now / then"), rows)
    if _comparable(before) != _comparable(after):
        print_line(f"not the same thing: then {_comparable(before)}, now {_comparable(after)}")


def changes(before: Figures, after: Figures) -> Iterable[tuple[str, float, float]]:
    """Every figure that both have: what it is, then, now."""
    old, new = _by_name(before), _by_name(after)
    return [(what, old[what], new[what]) for what in new if what in old]


def _comparable(figures: Figures) -> tuple[object, ...]:
    setting = figures.setting
    shape = (setting.items, setting.dimension, setting.shards, setting.nodes, setting.replicas)
    return (
        setting.catalogue,
        *shape,
        setting.router_workers,
        setting.item_count,
        setting.width,
        figures.machine.cores,
    )


def _by_name(figures: Figures) -> dict[str, float]:
    """Medians of what is compared from run to run."""
    named: dict[str, float | None] = {
        "recall": figures.recall,
        "kernel: CPU us/query": median_of(each.index_us for each in figures.kernels),
    }
    for in_flight in dict.fromkeys(each.in_flight for each in figures.echoes):
        echoes = figures.echo(in_flight)
        named[f"echo, {in_flight}: p50 ms"] = median_of(each.latency.p50 for each in echoes)
        named[f"echo, {in_flight}: CPU us"] = median_of(each.server_cpu_us for each in echoes)
    for mode, in_flight in figures.cells():
        named |= _load_by_name(f"{mode}, {in_flight}", figures.load(mode, in_flight))
    return {what: value for what, value in named.items() if value is not None}


def _load_by_name(what: str, loads: Sequence[Load]) -> dict[str, float | None]:
    return {
        f"{what}: queries/s": median_of(each.queries_per_s for each in loads),
        f"{what}: p50 ms": median_of(each.latency.p50 if each.latency else None for each in loads),
        f"{what}: p99 ms": median_of(each.latency.p99 if each.latency else None for each in loads),
        f"{what}: CPU us/query": median_of(each.cpu.total if each.cpu else None for each in loads),
    }


_LATENCY_COLUMNS = ("p50", "p90", "p99", "p99.9")
_CPU_COLUMNS = ("router", "nodes", "total")


def _load_cells(loads: Sequence[Load]) -> tuple[Cell, ...]:
    return (
        round(median(each.queries_per_s for each in loads)),
        *_latency_cells([each.latency for each in loads]),
    )


def _latency_cells(found: Sequence[Latency | None]) -> tuple[Cell, ...]:
    latencies = [each for each in found if each is not None]
    if not latencies:
        return (NOTHING,) * len(_LATENCY_COLUMNS)
    return (
        median(each.p50 for each in latencies),
        median(each.p90 for each in latencies),
        median(each.p99 for each in latencies),
        median(each.p99_9 for each in latencies),
    )


def _cpu_cells(loads: Sequence[Load]) -> tuple[Cell, ...]:
    found = [each.cpu for each in loads if each.cpu is not None]
    if not found:
        return (NOTHING,) * len(_CPU_COLUMNS)
    parts: tuple[Callable[[Cpu], float], ...] = (
        lambda cpu: cpu.routers,
        lambda cpu: cpu.nodes,
        lambda cpu: cpu.total,
    )
    return tuple(median(part(cpu) for cpu in found) for part in parts)


def _ratio_cell(loads: Sequence[Load], kernels: Sequence[Kernel]) -> Cell:
    return cell(ratio_to_kernel(loads, kernels))
