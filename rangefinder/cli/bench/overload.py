"""Usual traffic that a flood joins for a while: what is answered, how fast the rest is refused, and
when all is as before."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rangefinder.cli.bench.loads import Loads, Window, late_ms
from rangefinder.cli.bench.measure import Bench
from rangefinder.cli.bench.schedule import Bin, Latency, Samples, bins
from rangefinder.cli.bench.timeline import Timeline
from rangefinder.cli.bench.trials import Overload
from rangefinder.cli.bench.workers import Workers, workers
from rangefinder.errors import Overloaded

USUAL, FLOODED, AFTER = "before", "overloaded", "after"

TIMES = 3.0  # So many times the peak, all together.
_USUAL_SHARE = 0.5

_BEFORE_S, _AFTER_S = 3.0, 12.0  # Two more than it may take until all is as before.

# What is usual has moments, too: so many times its p99 is as before.
_AS_BEFORE = 2.0
_BIN_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadOrder:
    """For how long, and which closed loop the peak is that of."""

    seconds: float
    peak_in_flight: int


async def through_overloads(
    bench: Bench, order: OverloadOrder, advance: Callable[[int], None]
) -> list[Overload]:
    """As often as there are runs. The flood comes from processes of its own."""
    found = []
    with workers(bench.loads.generators.count) as flooders:
        for run in range(bench.plan.runs):
            await bench.cluster.until_well()
            found.append(await _through(bench, order, flooders, run))
            advance(1)
    return found


async def _through(bench: Bench, order: OverloadOrder, flooders: Workers, run: int) -> Overload:
    closed = await bench.loads.closed(bench.cluster, bench.asked, order.peak_in_flight, run)
    empty = await bench.echoes(run, 0, closed.queries_per_s * TIMES)
    window = Window.soon(_BEFORE_S + order.seconds + _AFTER_S)
    flood = Window(window.begin_s + _BEFORE_S, window.begin_s + _BEFORE_S + order.seconds)
    usual_rate = closed.queries_per_s * _USUAL_SHARE
    flood_rate = closed.queries_per_s * TIMES - usual_rate
    timeline = Timeline(window, bench.cluster.metrics())
    async with (
        bench.loads.making(bench.asked, window, rate=usual_rate) as usual,
        Loads(flooders, order.seconds).making(bench.asked, flood, rate=flood_rate) as flooded,
    ):
        await timeline.begin(USUAL, window.begin_s)
        await timeline.begin(FLOODED, flood.begin_s)
        cpu = await bench.cluster.cpu_between(time.monotonic(), flood.end_s)
        await timeline.begin(AFTER, flood.end_s)
        await timeline.end()
        seen, both = await usual, Samples.together([await usual, await flooded])
    assert cpu is not None, "its processes are of this machine"
    during = both.due_within(flood.begin_s, flood.end_s)
    seen_bins = bins(seen, window.begin_s, window.end_s, _BIN_S)
    return Overload(
        run=run,
        peak=closed.queries_per_s,
        usual_rate=usual_rate,
        flood_rate=flood_rate,
        begin_s=_BEFORE_S,
        end_s=_BEFORE_S + order.seconds,
        goodput=_goodput(both, flood),
        answered=Latency.of(during),
        refused=_refused(during),
        partial=during.partial,
        failures=during.failures,
        empty_p50_ms=empty.latency.p50,
        back_after_s=back_after_s(seen_bins, _BEFORE_S, _BEFORE_S + order.seconds),
        routers_cores=cpu.routers / order.seconds,
        nodes_cores=cpu.nodes / order.seconds,
        sent_late_ms=late_ms(during),
        spans=timeline.spans(both),
        bins=seen_bins,
    )


def _goodput(samples: Samples, window: Window) -> float:
    """Whole answers that came, a second."""
    came = samples.ended_within(window.begin_s, window.end_s)
    return float(came.is_whole.sum()) / window.seconds


def _refused(samples: Samples) -> Latency | None:
    """Milliseconds until the word came."""
    return Latency.of_times(samples.took_ms[samples.reasons == Overloaded.reason])


def back_after_s(seen: Sequence[Bin], begin_s: float, end_s: float) -> float | None:
    """Seconds after end_s until nothing fails and p99 is as it was before begin_s; None: never."""
    usual_ms = max(
        (each.p99_ms or 0.0 for each in seen if each.start_s + _BIN_S <= begin_s), default=0.0
    )
    back_s = 0.0
    after = [each for each in seen if each.start_s >= end_s]
    for each in after:
        if each.failed or each.p99_ms is None or each.p99_ms > _AS_BEFORE * usual_ms:
            back_s = each.start_s + _BIN_S - end_s
    return back_s if after and back_s < after[-1].start_s + _BIN_S - end_s else None
