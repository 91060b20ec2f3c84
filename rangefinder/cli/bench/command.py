"""`rangefinder bench`: what a cluster does on this machine."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from rangefinder.cli.bench import plots
from rangefinder.cli.bench.figures import FORMAT, Figures
from rangefinder.cli.bench.lists import NO_FAULT, Mode, faults_of, in_flight_of, modes_of, rates_of
from rangefinder.cli.bench.measure import Plan
from rangefinder.cli.bench.report import compare, show
from rangefinder.cli.bench.run import Order, Progress, run
from rangefinder.cli.bench.subject import (
    DATA_VARIABLE,
    DIMENSION,
    ITEM_COUNT,
    REAL_SET,
    Subject,
    generated,
    of_release,
    real_set,
    real_sets,
)
from rangefinder.cli.launcher import MALLOC_SETTINGS
from rangefinder.cli.output import ProgressBars, print_json, print_line, progress_bars
from rangefinder.documents import from_json, to_json, to_values
from rangefinder.errors import InputRefused
from rangefinder.storage import read_text, write_text

_EXAMPLE = f"""
\b
Examples:
  rangefinder bench
  rangefinder bench --items 1000000 --dimension 128 --shards 4 --data-dir bench
  rangefinder bench --release release --modes unary --in-flight 1,32 --fault none
  rangefinder bench --against benchmarks/results/bench.json --out results

Builds and starts a cluster of its own, from {REAL_SET} where the environment variable
{DATA_VARIABLE} names a folder with it, else from a generated world. Yardsticks of the same run: an
empty unary call (echo), and the same indexes searched in memory (kernel). CPU is that of the servers.
"""

_SHARES = "25%,50%,75%,90%"
_OVERLOAD_S = 10.0
_FAULTS = "slow,kill,blackhole" if sys.platform == "linux" else "kill"


@click.command(epilog=_EXAMPLE)
@click.option("--items", type=click.IntRange(100, 50_000_000), help="Of a generated world.")
@click.option("--dimension", type=click.IntRange(2, 4_096), help="Of a generated world.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of a generated world."
)
@click.option("--release", type=click.Path(path_type=Path), help="Instead; asked with its probes.")
@click.option("--shards", type=click.IntRange(1, 1_000), default=2, show_default=True)
@click.option("--nodes", type=click.IntRange(1, 100), default=2, show_default=True)
@click.option("--replicas", type=click.IntRange(1, 100), default=1, show_default=True)
@click.option(
    "--router-workers", type=click.IntRange(1, 128), default=1, show_default=True, help="See `up`."
)
@click.option("--address", help="host:port of a cluster that runs already, with --release.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Keeps what is built for the next run. With --address: of its `up`, for the CPU.",
)
@click.option("--item-count", type=click.IntRange(1, 1_000), default=10, show_default=True)
@click.option(
    "--width",
    type=click.IntRange(0, 10_000),
    default=0,
    help="Of the search. Default: the narrowest that holds a recall of 0.97.",
)
@click.option("--modes", default="unary,batch,stream", show_default=True)
@click.option("--in-flight", default="1,8,32,64", show_default=True, help="Requests.")
@click.option(
    "--batch", type=click.IntRange(1, 1_024), default=32, show_default=True, help="Queries a message."
)
@click.option(
    "--rates",
    help=f"Of open loops: requests a second, or shares of the peak of unary. Default: {_SHARES}.",
)
@click.option("--seconds", type=click.FloatRange(0.1, 3_600), default=3.0, show_default=True)
@click.option(
    "--runs", type=click.IntRange(1, 100), default=3, show_default=True, help="Medians of so many."
)
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(0.01, 10),
    default=1.0,
    show_default=True,
    help="Seconds that an answer may take.",
)
@click.option(
    "--fault",
    help="Of a node under load, where two others hold the same: some of stop, kill, slow, blackhole, or"
    f" none. Default: {_FAULTS}; with --address: none.",
)
@click.option("--fault-seconds", type=click.FloatRange(0.1, 600), default=8.0, show_default=True)
@click.option(
    "--overload",
    "overload_s",
    type=click.FloatRange(0, 600),
    help=f"Seconds of three times the peak; 0: none. Default: {_OVERLOAD_S:g}; with --address: 0.",
)
@click.option(
    "--generators", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes."
)
@click.option(
    "--connections",
    type=click.IntRange(1, 64),
    help="Of each generator: several spread over workers that share a port. Default: two for each.",
)
@click.option(
    "--curve/--no-curve",
    "has_curve",
    default=True,
    show_default=True,
    help="Recall against throughput, over the search widths.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/results"),
    show_default=True,
    help="Folder of bench.json and of the plots.",
)
@click.option("--plots/--no-plots", "with_plots", default=True, show_default=True)
@click.option("--against", type=click.Path(path_type=Path), help="bench.json of an earlier run.")
@click.option("--json", "as_json", is_flag=True, help="Print what is written to bench.json.")
def command(
    items: int | None,
    dimension: int | None,
    seed: int,
    release: Path | None,
    shards: int,
    nodes: int,
    replicas: int,
    router_workers: int,
    address: str | None,
    data_dir: Path | None,
    item_count: int,
    width: int,
    modes: str,
    in_flight: str,
    batch: int,
    rates: str | None,
    seconds: float,
    runs: int,
    deadline_s: float,
    fault: str | None,
    fault_seconds: float,
    overload_s: float | None,
    generators: int,
    connections: int | None,
    has_curve: bool,
    out: Path,
    with_plots: bool,
    against: Path | None,
    as_json: bool,
) -> None:
    """Measure retrieval: latency, throughput, CPU and recall, in closed and in open loop.

    Prints the yardsticks first, then tables, then what there are targets for; writes bench.json and
    plots. Ratios of one run compare; absolute figures are those of this machine.
    """
    _require_one_subject(items, dimension, release, address)
    has_unary = Mode.UNARY in modes_of(modes)
    has_trials = has_unary and not address
    order = Order(
        plan=Plan(
            in_flight=in_flight_of(in_flight),
            modes=modes_of(modes),
            seconds=seconds,
            runs=runs,
            queries_per_message=batch,
        ),
        node_count=nodes,
        replica_count=replicas,
        router_workers=router_workers,
        address=address,
        data_dir=data_dir if address else None,
        item_count=item_count,
        width=width,
        deadline_s=deadline_s,
        rates=rates_of(rates or (_SHARES if has_unary else "")),
        faults=faults_of(fault or (_FAULTS if has_trials else NO_FAULT)),
        fault_s=fault_seconds,
        overload_s=(_OVERLOAD_S if has_trials else 0.0) if overload_s is None else overload_s,
        generators=generators,
        connections=connections or (1 if router_workers == 1 else 2 * router_workers),
        has_curve=has_curve,
        seed=seed,
    )
    order.require_consistent()
    if with_plots:
        plots.require_plotting()
    earlier = _read(against) if against is not None else None
    _make_folder(out, "--out")
    with _folder(None if address else data_dir) as folder, progress_bars() as bars:
        subject = _subject(items, dimension, seed, release, shards, folder, bars)
        figures = _measured(order, subject, folder, bars)
    _leave(figures, earlier, out, with_plots=with_plots, as_json=as_json)


def _require_one_subject(
    items: int | None, dimension: int | None, release: Path | None, address: str | None
) -> None:
    if release is not None and (items is not None or dimension is not None):
        raise InputRefused("--items and --dimension are of a generated world: not with --release")
    if address is not None and release is None:
        raise InputRefused("--address needs the --release that it serves, for queries and kernel")


def _read(path: Path) -> Figures:
    """An earlier run. Raises InputRefused."""
    figures = from_json(read_text(path), Figures, str(path))
    if figures.format != FORMAT:
        raise InputRefused(f"{path}: format {figures.format}: this Rangefinder compares {FORMAT}")
    return figures


def _make_folder(path: Path, option: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputRefused(f"{option} {path}: {(error.strerror or '').lower()}") from None


@contextmanager
def _folder(data_dir: Path | None) -> Iterator[Path]:
    """Where releases and clusters are: one that is kept, or one that is not."""
    if data_dir is not None:
        _make_folder(data_dir, "--data-dir")
        yield data_dir.resolve()
        return
    with TemporaryDirectory(prefix="rangefinder-bench-") as name:
        yield Path(name)


def _subject(
    items: int | None,
    dimension: int | None,
    seed: int,
    release: Path | None,
    shards: int,
    folder: Path,
    bars: ProgressBars,
) -> Subject:
    if release is not None:
        return of_release(release)
    catalogue = None if items or dimension else real_set(real_sets())
    catalogue = catalogue or generated(items or ITEM_COUNT, dimension or DIMENSION, seed)
    return catalogue.build(folder / "releases", shards, bars)


def _measured(order: Order, subject: Subject, folder: Path, bars: ProgressBars) -> Figures:
    os.environ.update(MALLOC_SETTINGS | os.environ)  # What is searched in memory is to be as in a node.

    async def work() -> Figures:
        task = asyncio.current_task()
        assert task is not None
        # Ended in order: else the cluster would outlive the one who started it.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await run(order, subject, folder, Progress(bars.begin, bars.advance))

    try:
        return asyncio.run(work())  # It makes no load, and uvloop would fork beside gRPC's threads.
    except asyncio.CancelledError:
        raise click.Abort from None
    except BrokenProcessPool:
        raise InputRefused(
            "a measuring process was killed, most likely for want of memory: each one holds the index"
        ) from None


def _leave(
    figures: Figures, earlier: Figures | None, out: Path, *, with_plots: bool, as_json: bool
) -> None:
    path = out / "bench.json"
    write_text(path, to_json(figures))
    paths = [path, *(plots.draw(figures, out) if with_plots else [])]
    if as_json:
        print_json(to_values(figures))
        return
    show(figures)
    if earlier is not None:
        compare(earlier, figures)
    print_line("wrote " + ", ".join(str(each) for each in paths))
