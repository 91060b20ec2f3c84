"""Faults for people: what callers noticed in each part of them, and what they should have."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from rangefinder.cli.bench.fault import BEFORE, SETTLED, SETTLED_S, SETTLING
from rangefinder.cli.bench.figures import Figures
from rangefinder.cli.bench.lists import FaultKind
from rangefinder.cli.bench.trials import Fault, Span
from rangefinder.cli.bench.verdict import Cell, Verdict, cell, median_of
from rangefinder.cli.output import print_line, print_table

_COLUMNS = ("when", "p50", "p95", "p99", "failed", "partial", "attempts", "hedges", "retries")


def show_faults(figures: Figures) -> None:
    """Print a line and a table for each kind."""
    for kind in figures.fault_kinds():
        _show(figures.faults_of(kind))


def _show(faults: Sequence[Fault]) -> None:
    fault = faults[0]
    failures = sum((Counter(each.failures) for each in faults), Counter())
    least = [each.coverage for one in faults for each in one.bins if each.coverage is not None]
    print_line(
        f"{fault.kind}, one of {fault.nodes} nodes, {fault.replicas} replicas:"
        f" {sum(each.messages for each in faults):,} requests at {fault.rate:,.0f}/s,"
        f" {sum(each.failed for each in faults):,} failed {dict(failures) or ''};"
        f" least coverage of 0.1 s {min(least, default=0):.3f};"
        f" hedged after {_ms(median_of(each.hedge_delay_s for each in faults))},"
        f" left out after {_ms(median_of(each.left_out_after_s for each in faults))};"
        f" late p99 {max(each.sent_late_ms for each in faults):.1f} ms"
    )
    title = f"through {fault.kind}, ms from when each was due; queries sent to nodes for each request"
    print_table(title, _COLUMNS, [_row(parts) for parts in _parts(faults)])


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1000:.1f} ms"


def _parts(faults: Sequence[Fault]) -> Iterator[list[Span]]:
    """The same part of every run."""
    for span in faults[0].spans:
        yield [each for fault in faults if (each := fault.span(span.what)) is not None]


def _row(parts: Sequence[Span]) -> tuple[Cell, ...]:
    latencies = [each.latency for each in parts if each.latency is not None]
    sent = [each.sent for each in parts if each.sent is not None]
    return (
        parts[0].what,
        cell(median_of(each.p50 for each in latencies)),
        cell(median_of(each.p95 for each in latencies)),
        cell(median_of(each.p99 for each in latencies)),
        sum(each.failed for each in parts),
        sum(each.partial for each in parts),
        cell(median_of(each.attempts for each in parts)),
        cell(median_of(each.hedge_share for each in sent)),
        cell(median_of(each.retry_share for each in sent)),
    )


def fault_verdicts(figures: Figures) -> Iterator[Verdict]:
    """What there are targets for; of a kind that was not tried, nothing."""
    for kind in figures.fault_kinds():
        faults = figures.faults_of(kind)
        if kind == FaultKind.SLOW:
            yield from _slow_verdicts(faults)
        if kind == FaultKind.BLACKHOLE:
            yield from _blackhole_verdicts(faults)
        else:
            failed = sum(each.failed for each in faults)
            yield Verdict(what=f"{kind}: failed requests", value=failed, bound=0)


def _slow_verdicts(faults: Sequence[Fault]) -> Iterator[Verdict]:
    for part in (SETTLING, SETTLED):
        over_ms = median_of(_over_ms(each, part) for each in faults)
        if over_ms is not None:
            what = f"slow, {part}: p99 - healthy p95 - hedge delay, ms"
            yield Verdict(what=what, value=over_ms, bound=10)
    settled = [span for each in faults if (span := each.span(SETTLED)) is not None]
    hedges = median_of(each.sent.hedge_share for each in settled if each.sent is not None)
    if hedges is not None:
        yield Verdict(what=f"slow, {SETTLED}: hedges / queries", value=hedges, bound=0.05)


def _over_ms(fault: Fault, what: str) -> float | None:
    """By how much a part's p99 is over what is usual for 95 % and the time until a hedge."""
    before, part = fault.span(BEFORE), fault.span(what)
    if before is None or before.latency is None or part is None or part.latency is None:
        return None
    if fault.hedge_delay_s is None:
        return None
    return part.latency.p99 - before.latency.p95 - fault.hedge_delay_s * 1000


def _blackhole_verdicts(faults: Sequence[Fault]) -> Iterator[Verdict]:
    share = sum(each.failed for each in faults) / max(sum(each.messages for each in faults), 1)
    yield Verdict(what="blackhole: failed / requests", value=share, bound=0.001)
    # Not seen to be left out is as bad as late.
    left_out_s = median(each.left_out_after_s or SETTLED_S for each in faults)
    yield Verdict(what="blackhole: seconds until the node is left out", value=left_out_s, bound=2)
