"""Overload for people: what was answered and refused while it lasted, and what should have been."""

from collections.abc import Iterator
from statistics import median

from rangefinder.cli.bench.figures import Figures
from rangefinder.cli.bench.overload import FLOODED, TIMES
from rangefinder.cli.bench.schedule import Latency
from rangefinder.cli.bench.trials import Overload
from rangefinder.cli.bench.verdict import NOTHING, Cell, Verdict, cell, median_of
from rangefinder.cli.output import print_line, print_table
from rangefinder.errors import Overloaded

_BACK_S_MAX = 10.0

_COLUMNS = (
    *("run", "peak", "goodput", "p50", "p99", "refusals", "p50", "p99", "empty", "back s"),
    *("router", "nodes", "late"),
)


def show_overload(figures: Figures) -> None:
    """Print each run, and what failed."""
    if not figures.overloads:
        return
    print_table(
        f"overload, {TIMES:g} times the peak: answers a second and their ms, refusals and their ms, p50"
        " of as many empty calls; cores of router and nodes; late p99 of the generators",
        _COLUMNS,
        [_row(each) for each in figures.overloads],
    )
    for each in figures.overloads:
        print_line(f"run {each.run}: {each.partial:,} partial, not answered: {each.failures}")


def _row(overload: Overload) -> tuple[Cell, ...]:
    return (
        overload.run,
        round(overload.peak),
        round(overload.goodput),
        *_p50_and_p99(overload.answered),
        overload.failures.get(Overloaded.reason, 0),
        *_p50_and_p99(overload.refused),
        overload.empty_p50_ms,
        cell(overload.back_after_s),
        overload.routers_cores,
        overload.nodes_cores,
        overload.sent_late_ms,
    )


def _p50_and_p99(latency: Latency | None) -> tuple[Cell, Cell]:
    return (NOTHING, NOTHING) if latency is None else (latency.p50, latency.p99)


def overload_verdicts(figures: Figures) -> Iterator[Verdict]:
    """Medians of the runs."""
    overloads = figures.overloads
    if not overloads:
        return
    goodput = median(each.goodput / each.peak for each in overloads)
    yield Verdict(what="overload: goodput / peak", value=goodput, bound=0.9, is_at_most=False)
    over_ms = median_of(
        each.refused.p99 - each.empty_p50_ms if each.refused else None for each in overloads
    )
    if over_ms is not None:
        what = "overload: p99 of refusals - p50 of an empty call at that load, ms"
        yield Verdict(what=what, value=over_ms, bound=5)
    # Not back while there was load is as bad as late.
    back_s = median(
        2 * _BACK_S_MAX if each.back_after_s is None else each.back_after_s for each in overloads
    )
    yield Verdict(what="overload: seconds until all is as before", value=back_s, bound=_BACK_S_MAX)
    sent = [span.sent for each in overloads if (span := each.span(FLOODED)) is not None]
    extra = median_of(each.extra_share if each else None for each in sent)
    if extra is not None:
        yield Verdict(what="overload: hedges and retries / queries", value=extra, bound=0.2)
