"""Figures of a run that never was, with round numbers."""

from rangefinder.cli.bench.figures import (
    FORMAT,
    Cpu,
    Echo,
    Figures,
    Kernel,
    Load,
    Machine,
    Setting,
    Width,
)
from rangefinder.cli.bench.lists import Mode
from rangefinder.cli.bench.schedule import Bin, Latency
from rangefinder.cli.bench.trials import Fault, Overload, Sent, Span


def latency(p50: float) -> Latency:
    return Latency(p50=p50, p90=p50 * 2, p95=p50 * 2.5, p99=p50 * 3, p99_9=p50 * 4)


def load(
    mode: Mode,
    in_flight: int,
    run: int,
    cpu_us: float | None,
    *,
    rate: float | None = None,
    p50: float = 3,
) -> Load:
    return Load(
        run=run,
        mode=mode,
        in_flight=in_flight,
        rate=rate,
        queries_per_s=1_000.0 * (run + 1),
        latency=latency(p50),
        cpu=None if cpu_us is None else Cpu(routers=cpu_us / 4, nodes=cpu_us * 3 / 4),
        messages=100,
        failed=run,
        partial=0,
        failures={"DEADLINE_SPENT": run} if run else {},
        sent_late_ms=0.1,
    )


def figures(*, unary_us: float | None = 600.0, stream_us: float | None = 120.0) -> Figures:
    """Three runs: the index takes 100, 200 and 100 us, an empty call 250 us and 1 ms."""
    runs = range(3)
    kernel_us = [100.0, 200.0, 100.0]
    return Figures(
        format=FORMAT,
        made_at="2026-01-02T03:04:05+00:00",
        machine=Machine(processor="Abacus", cores=2, system="None", versions={"python": "3"}),
        setting=Setting(
            release="r",
            catalogue="world",
            items=1_000,
            dimension=8,
            metric="l2",
            shards=2,
            nodes=2,
            replicas=1,
            router_workers=1,
            address=None,
            queries=100,
            seed=0,
            item_count=10,
            width=20,
            queries_per_message=32,
            seconds=1.0,
            runs=3,
            generators=1,
            connections=1,
        ),
        recall=0.98,
        recall_target=0.97,
        echoes=[
            Echo(
                run=run,
                in_flight=in_flight,
                calls_per_s=4_000,
                latency=latency(1.0),
                server_cpu_us=250,
            )
            for run in runs
            for in_flight in (1, 32)
        ],
        paced=[
            Echo(run=run, in_flight=0, calls_per_s=900, latency=latency(1.0), server_cpu_us=250)
            for run in runs
        ],
        kernels=[
            Kernel(
                run=run,
                processes=2,
                index_us=kernel_us[run],
                index_queries_per_s=9_000,
                scored_us=150,
                scored_queries_per_s=6_000,
            )
            for run in runs
        ],
        closed=[
            load(mode, in_flight, run, cpu_us)
            for run in runs
            for mode, cpu_us in ((Mode.UNARY, unary_us), (Mode.STREAM, stream_us))
            for in_flight in (1, 32)
        ],
        open=[load(Mode.UNARY, 0, run, 700, rate=rate) for run in runs for rate in (100.0, 250.5)],
        widths=[Width(width=10, recall=0.9, queries_per_s=9_000)],
        overloads=[overload(run) for run in runs],
        faults=[fault(kind, run) for run in runs for kind in ("slow", "blackhole", "kill")],
    )


def overload(
    run: int, *, goodput: float = 950.0, refused_p50: float = 1.5, hedges: float = 0.1
) -> Overload:
    """10 s of three times a peak of 1,000; an empty call takes 1 ms, p99 of refusals is 3 x p50."""
    return Overload(
        run=run,
        peak=1_000,
        usual_rate=500,
        flood_rate=2_500,
        begin_s=3.0,
        end_s=13.0,
        goodput=goodput,
        answered=latency(20.0),
        refused=latency(refused_p50),
        partial=0,
        failures={"OVERLOADED": 20_500},
        empty_p50_ms=1.0,
        back_after_s=0.5,
        routers_cores=0.7,
        nodes_cores=0.6,
        sent_late_ms=0.1,
        spans=[
            Span(
                what="overloaded",
                begin_s=3.0,
                end_s=13.0,
                requests=30_000,
                failed=20_500,
                partial=0,
                latency=latency(20.0),
                sent=Sent(first=10_000, hedge=10_000 * hedges, retry=100),
            )
        ],
        bins=[],
    )


def fault(kind: str, run: int, *, settled_p50: float = 3.0, hedges: float = 0.04) -> Fault:
    """10 s, from the third to the ninth; usually 1 ms, and 2 ms until a hedge."""
    parts = {
        "before": (0.0, 3.0, 1.0),
        "its first seconds": (3.0, 6.0, 4.0),
        "from its third second on": (6.0, 9.0, settled_p50),
        "after": (9.0, 10.0, 1.0),
    }
    return Fault(
        run=run,
        kind=kind,
        node=f"node-{run}",
        nodes=3,
        replicas=3,
        rate=100,
        begin_s=3.0,
        end_s=9.0,
        messages=1_000,
        failed=0,
        failures={},
        hedge_delay_s=0.002,
        left_out_after_s=None if kind == "slow" else 0.4,
        sent_late_ms=0.1,
        spans=[
            Span(
                what=what,
                begin_s=begin_s,
                end_s=end_s,
                requests=100,
                failed=0,
                partial=0,
                latency=latency(p50),
                sent=Sent(first=200, hedge=200 * hedges, retry=2),
            )
            for what, (begin_s, end_s, p50) in parts.items()
        ],
        bins=[
            Bin(start_s=place / 10, requests=10, failed=0, p50_ms=2, p99_ms=5, coverage=1.0)
            for place in range(99)
        ]
        + [Bin(start_s=9.9, requests=2, failed=2, p50_ms=None, p99_ms=None, coverage=None)],
    )
