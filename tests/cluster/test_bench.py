"""`rangefinder bench`: measures clusters of real processes, and refuses what it cannot measure."""

import asyncio
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rangefinder.cli.bench.calls import Asked
from rangefinder.cli.bench.echo import running_echo
from rangefinder.cli.bench.figures import Figures, Load
from rangefinder.cli.bench.lists import Mode
from rangefinder.cli.bench.load import LoadOrder, generate
from rangefinder.cli.bench.schedule import due_times
from rangefinder.cli.bench.subject import generated
from rangefinder.cli.output import progress_bars
from rangefinder.documents import from_json
from tests.kit.commands import rangefinder_here, require_refused
from tests.kit.processes import rangefinder
from tests.kit.remains import processes_of
from tests.kit.served import Served

BRIEFLY = ("--seconds", 0.6, "--runs", 1, "--deadline", 5)


def echo_asked(address: str) -> Asked:
    return Asked(
        address=address,
        mode=Mode.ECHO,
        queries=np.zeros((1, 2), np.float32),
        queries_per_message=1,
        item_count=10,
        width=0,
        deadline_s=5.0,
    )


async def test_an_open_loop_sends_what_is_due() -> None:
    """Two generators send each request of the schedule once, in turn, and none before it is due."""
    begin_s = time.monotonic() + 0.2
    order = LoadOrder(
        asked=echo_asked(""),
        begin_s=begin_s,
        end_s=begin_s + 0.3,
        in_flight=0,
        rate=200.0,
        generator=0,
        generators=2,
    )
    async with running_echo() as echo:
        orders = [replace(order, asked=echo_asked(echo.address), generator=number) for number in (0, 1)]
        both = await asyncio.gather(*(generate(each) for each in orders))
    due_s = due_times(200.0, begin_s, begin_s + 0.3)
    for number, samples in enumerate(both):
        assert due_s[number::2].tolist() == sorted(samples.due_s.tolist())
        assert (samples.sent_s >= samples.due_s).all() and (samples.ended_s >= samples.sent_s).all()
        assert samples.failed == samples.partial == 0


async def test_a_closed_loop_keeps_so_many_in_flight() -> None:
    """At no time are more requests under way than asked for, and all begin before the end."""
    async with running_echo() as echo:
        begin_s = time.monotonic()
        order = LoadOrder(
            asked=echo_asked(echo.address),
            begin_s=begin_s,
            end_s=begin_s + 0.8,
            in_flight=3,
            rate=None,
            generator=0,
            generators=1,
        )
        samples = await generate(order)
    changes = sorted(
        [*((each, 1) for each in samples.sent_s), *((each, -1) for each in samples.ended_s)]
    )
    assert 3 == max(np.cumsum([change for _, change in changes]))
    assert (samples.sent_s < order.end_s).all()
    assert samples.failed == 0


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def require_sane(load: Load) -> None:
    assert load.failed == load.partial == 0, load
    assert load.messages > 0 and load.queries_per_s > 0
    assert load.latency is not None
    assert 0 < load.latency.p50 <= load.latency.p90 <= load.latency.p99 <= load.latency.p99_9
    assert load.cpu is not None and load.cpu.total > 0


async def test_a_generated_world_is_measured(tmp_path: Path) -> None:
    """One command builds, starts, measures and stops: tables, JSON and plots, with the yardsticks of
    the same run and the loss of a node. Nothing is left behind but what is kept for the next run."""
    results, kept = tmp_path / "results", tmp_path / "kept"
    done = await asyncio.to_thread(
        rangefinder,
        *("bench", "--items", 2_000, "--dimension", 16, *BRIEFLY, "--modes", "unary"),
        *(
            "--in-flight",
            2,
            "--rates",
            "50%",
            "--fault",
            "kill",
            "--fault-seconds",
            0.3,
            "--overload",
            0,
        ),
        *("--data-dir", kept, "--out", results),
    )
    assert (done.returncode, done.stderr) == (0, "")
    for title in ("echo", "kernel", "closed loop", "open loop", "through kill", "targets"):
        assert title in done.stdout
    found = from_json((results / "bench.json").read_text(), Figures, "bench.json")
    assert found.recall >= found.recall_target
    for load in (*found.closed, *found.open):
        require_sane(load)
    assert [(Mode.UNARY, 2)] == found.cells()
    assert found.kernels[0].index_us > 0 and found.echoes[0].server_cpu_us > 0
    assert [("kill", 0)] == [(each.kind, each.failed) for each in found.faults]
    names = ["bench.json", "latency-kill.png", "latency-load.png", "recall-throughput.png"]
    assert names == names_in(results)
    assert ["releases"] == names_in(kept)
    with progress_bars() as bars:
        again = generated(2_000, 16, 0).build(kept / "releases", 2, bars)
    assert bars.seconds() == {}  # It was found, not built.
    assert again.manifest.item_count == found.setting.items == 2_000
    assert processes_of(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 as it is")
async def test_faults_of_lines_are_measured(tmp_path: Path) -> None:
    """One of three replicas answers late, then another one not at all: no request fails, the router
    hedges what the first has, leaves the second out, and bench says both."""
    done = await asyncio.to_thread(
        rangefinder,
        *("bench", "--items", 2_000, "--dimension", 16, *BRIEFLY, "--modes", "unary", "--in-flight", 2),
        *("--rates", "100", "--fault", "slow,blackhole", "--fault-seconds", 3.5, "--no-curve"),
        *("--overload", 0, "--no-plots", "--out", tmp_path, "--data-dir", tmp_path / "kept"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = from_json((tmp_path / "bench.json").read_text(), Figures, "bench.json")
    slow, silent = found.faults
    assert ("slow", "node-0", 0) == (slow.kind, slow.node, slow.failed)
    assert ("blackhole", "node-1", 0) == (silent.kind, silent.node, silent.failed)
    before, settling, settled, after = slow.spans
    assert slow.messages == sum(each.requests for each in (before, settling, settled, after))
    assert settling.sent is not None and settling.sent.hedge > 0
    assert slow.hedge_delay_s is not None and 0 < slow.hedge_delay_s < 0.2
    assert silent.left_out_after_s is not None and silent.left_out_after_s < 2
    assert processes_of(tmp_path) == []


async def test_an_overload_is_measured(tmp_path: Path) -> None:
    """Three times the peak for a second: some are answered, what is not is told why, and the router
    sends no more than it may. Absolute figures are those of a machine that this test may share."""
    done = await asyncio.to_thread(
        rangefinder,
        *("bench", "--items", 2_000, "--dimension", 16, *BRIEFLY, "--modes", "unary", "--in-flight", 4),
        *("--rates", "100", "--fault", "none", "--overload", 1, "--no-curve", "--no-plots"),
        *("--out", tmp_path),
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = from_json((tmp_path / "bench.json").read_text(), Figures, "bench.json")
    (overload,) = found.overloads
    assert overload.flood_rate + overload.usual_rate == pytest.approx(3 * overload.peak)
    assert 0 < overload.goodput <= overload.flood_rate + overload.usual_rate
    flooded = next(each for each in overload.spans if each.what == "overloaded")
    assert sum(overload.failures.values()) == flooded.failed
    assert flooded.sent is not None and flooded.sent.extra_share <= 0.25
    assert "overload" in done.stdout and processes_of(tmp_path) == []


async def test_a_running_cluster_is_measured(plain: Served, tmp_path: Path) -> None:
    """A cluster that runs is asked with the probes of its release; with the folder of its `up` its CPU
    is known. Nothing is done to it, and without plots there is the JSON alone, printed and written."""
    about = ("bench", "--address", plain.cluster.address, "--release", plain.release.path)
    options = (*BRIEFLY, "--modes", "stream,batch", "--in-flight", 2, "--out", tmp_path)
    little = ("--generators", 2, "--connections", 2, "--no-curve", "--no-plots")
    where = ("--data-dir", plain.cluster.data_dir)
    done = await asyncio.to_thread(rangefinder, *about, *options, *little, *where, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads((tmp_path / "bench.json").read_text())
    found = from_json(done.stdout, Figures, "standard output")
    for load in found.closed:
        require_sane(load)
    assert [(Mode.STREAM, 2), (Mode.BATCH, 2)] == found.cells()
    assert found.faults == [] and found.open == []
    assert ["bench.json"] == names_in(tmp_path)
    assert plain.tracebacks() == []


REFUSED = {
    "modes": (("--modes", "echo"), "--modes 'echo': give some of"),
    "in flight": (("--in-flight", "0"), "--in-flight '0': give integers"),
    "rates": (("--rates", "fast"), "--rates 'fast': give requests a second"),
    "shares": (("--modes", "batch", "--rates", "50%"), "add it to --modes"),
    "fault": (("--modes", "batch", "--fault", "kill"), "add it to --modes"),
    "a fault": (("--fault", "slowly"), "--fault 'slowly': give some of stop, kill, slow"),
    "replicas": (("--replicas", 3), "--replicas 3 need as many --nodes"),
    "width": (("--width", 5), "--width 5 holds no 10 items"),
    "batch": (("--batch", 1_000, "--item-count", 1_000), "over 200,000"),
    "address": (("--address", "127.0.0.1:1"), "needs the --release"),
    "two subjects": (("--items", 1_000, "--release", "x"), "not with --release"),
    "no release": (("--release", "none"), "none/release.yaml: no such file"),
    "no earlier run": (("--against", "none"), "none: no such file"),
    "out": (("--out", "/dev/null/x"), "--out /dev/null/x: not a directory"),
    "kept": (("--out", "/tmp", "--data-dir", "/dev/null/x"), "--data-dir /dev/null/x: not a directory"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_measured_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ends with one line that names what is wrong, before anything is built or started."""
    monkeypatch.chdir(tmp_path)
    options, words = REFUSED[name]
    require_refused(rangefinder_here("bench", *options), words)


async def test_another_cluster_than_the_release_is_refused(
    plain: Served, shelf_served: Served, tmp_path: Path
) -> None:
    """A cluster that serves another release, and an address where nobody answers, are named."""
    about = ("bench", *BRIEFLY, "--no-plots", "--out", tmp_path, "--release", shelf_served.release.path)
    other, nobody = await asyncio.gather(
        asyncio.to_thread(rangefinder, *about, "--address", plain.cluster.address),
        asyncio.to_thread(rangefinder, *about, "--address", "127.0.0.1:1"),
    )
    require_refused(other, f"{plain.cluster.address} serves release")
    require_refused(nobody, "127.0.0.1:1 does not answer")
    assert [] == names_in(tmp_path)
