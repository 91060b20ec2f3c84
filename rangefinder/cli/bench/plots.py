"""Figures as pictures. Only this file knows matplotlib."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from rangefinder.cli.bench.figures import Figures
from rangefinder.cli.bench.trials import Fault
from rangefinder.errors import InputRefused

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Panel = Callable[[Figures, "list[Axes]"], None]

_SIZE_INCHES, _DOTS = (7.5, 4.5), 130


def require_plotting() -> None:
    """Refuse before minutes of measuring, not after them. Raises InputRefused."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise InputRefused(
            "plots need matplotlib: install rangefinder[bench], or give --no-plots"
        ) from None
    mpl.use("agg")  # No screen is needed.


def draw(figures: Figures, folder: Path) -> list[Path]:
    """Write every picture that there are figures for; returns their paths."""
    import matplotlib.pyplot as plt

    paths = []
    panels: dict[str, tuple[_Panel, bool, int]] = {
        "recall-throughput.png": (_recall, bool(figures.widths), 1),
        "latency-load.png": (_latency, bool(figures.open), 1),
        **{
            f"latency-{kind}.png": (partial(_through_fault, kind), True, 2)
            for kind in figures.fault_kinds()
        },
    }
    for name, (panel, is_known, rows) in panels.items():
        if is_known:
            picture, axes = plt.subplots(
                rows, 1, figsize=_SIZE_INCHES, sharex=True, squeeze=False, layout="constrained"
            )
            panel(figures, [each[0] for each in axes])
            picture.savefig(folder / name, dpi=_DOTS)
            plt.close(picture)
            paths.append(folder / name)
    return paths


def _title(figures: Figures) -> str:
    setting = figures.setting
    return f"{setting.catalogue}, {setting.items:,} items, {figures.machine.cores} cores"


def _recall(figures: Figures, axes: "list[Axes]") -> None:
    (ax,) = axes
    points = figures.widths
    ax.plot([each.recall for each in points], [each.queries_per_s for each in points], "o-")
    for each in points:
        where = (each.recall, each.queries_per_s)
        ax.annotate(f"{each.width}", where, xytext=(4, 4), textcoords="offset points")
    ax.set_xlabel(f"recall@{figures.setting.item_count}")
    ax.set_ylabel(f"queries/s ({figures.setting.queries_per_message} a message)")
    ax.set_ylim(bottom=0)
    ax.set_title(f"{_title(figures)}: recall against throughput, by search width", fontsize=10)
    ax.grid(alpha=0.3)


def _latency(figures: Figures, axes: "list[Axes]") -> None:
    (ax,) = axes
    for name in ("p50", "p90", "p99", "p99_9"):
        points = []
        for rate in figures.rates():
            found = [each.latency for each in figures.open if each.rate == rate]
            known = [getattr(each, name) for each in found if each is not None]
            if known:
                points.append((rate, median(known)))
        rates, values = [rate for rate, _ in points], [value for _, value in points]
        ax.plot(rates, values, "o-", label=name.replace("_", "."))
    ax.set_xlabel("requests/s, unary, constant rate")
    ax.set_ylabel("ms from when due")
    ax.set_yscale("log")
    ax.set_title(f"{_title(figures)}: latency against load", fontsize=10)
    ax.grid(alpha=0.3, which="both")
    ax.legend()


def _through_fault(kind: str, figures: Figures, axes: "list[Axes]") -> None:
    """Of the first run: medians of moments would hide what a moment cost."""
    fault = figures.faults_of(kind)[0]
    latency, coverage = axes
    _lines(latency, fault)
    seconds = [each.start_s for each in fault.bins]
    coverage.plot(seconds, [_or_gap(each.coverage) for each in fault.bins], label="coverage")
    shares = [each.failed / max(each.requests, 1) for each in fault.bins]
    coverage.plot(seconds, shares, label="failed, share")
    coverage.set_ylim(-0.05, 1.05)
    coverage.set_xlabel("seconds")
    for ax in axes:
        ax.axvspan(fault.begin_s, fault.end_s, alpha=0.15, color="tab:red")
        ax.grid(alpha=0.3, which="both")
        ax.legend(loc="upper right")
    latency.set_title(
        f"{_title(figures)}: {fault.node} of {fault.nodes}, {fault.replicas} replicas:"
        f" {fault.kind}, {fault.rate:,.0f} requests/s",
        fontsize=10,
    )


def _lines(ax: "Axes", fault: Fault) -> None:
    seconds = [each.start_s for each in fault.bins]
    ax.plot(seconds, [_or_gap(each.p50_ms) for each in fault.bins], label="p50")
    ax.plot(seconds, [_or_gap(each.p99_ms) for each in fault.bins], label="p99")
    ax.set_yscale("log")
    ax.set_ylabel("ms from when due")


def _or_gap(value: float | None) -> float:
    return float("nan") if value is None else value
