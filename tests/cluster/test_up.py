"""`rangefinder up`: what it refuses, what it promises with READY, and that nothing outlives it."""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from rangefinder import Client, supervised
from rangefinder.cli.launcher import FileLauncher
from rangefinder.errors import RangefinderError
from rangefinder.map_file import read_map
from rangefinder.supervised import ProcessFailed, Supervised
from tests.kit.commands import rangefinder_all, require_refused
from tests.kit.processes import free_port, rangefinder, running_cluster
from tests.kit.remains import descendants, processes_of, survivors
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.waiting import until, until_async

STOP_S_MAX = 10.0
NAMES = ("node-0", "node-1", "router-0")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return build_small_release(tmp_path_factory.mktemp("up"))


def pid_files(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "run").glob("*.pid"))


async def test_what_cannot_be_started_is_refused(release: SmallRelease, tmp_path: Path) -> None:
    """Each ends with one line that names what is wrong and an exit code, before any process starts."""
    a_file = tmp_path / "a-file"
    a_file.write_text("kept")
    long_name = tmp_path / ("x" * 300)

    def up(name: str, **changed: object) -> tuple[object, ...]:
        options = {"release": release.path, "data-dir": tmp_path / name, "port": free_port()}
        return ("up", *(f"--{key}={value}" for key, value in (options | changed).items()))

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        refused: dict[str, tuple[tuple[object, ...], str]] = {
            "port": (up("port", port=port), f"port {port} is in use"),
            "no release": (
                up("a", release=tmp_path / "none"),
                f"{tmp_path}/none/release.yaml: no such",
            ),
            "file as release": (up("b", release=a_file), "a-file/release.yaml: no such file"),
            "long release": (up("c", release=long_name), "release.yaml: no such file"),
            "file as data": (up("d", **{"data-dir": a_file}), f"--data-dir {a_file}: not a directory"),
            "file above data": (up("e", **{"data-dir": a_file / "x"}), "not a directory"),
            "long data": (up("f", **{"data-dir": long_name}), "file name too long"),
            "unwritable": (
                up("g", **{"data-dir": "/proc/rangefinder"}),
                "--data-dir /proc/rangefinder: ",
            ),
            "replicas": (up("h", replicas=3), "3 replicas need as many nodes: 2 is too few"),
            "cluster": (up("i", cluster="no name"), "cluster: "),
        }
        done = await rangefinder_all({name: command for name, (command, _) in refused.items()})

    for name, (_, words) in refused.items():
        require_refused(done[name], words)
    assert a_file.read_text() == "kept"
    assert processes_of(tmp_path) == []


async def test_a_data_directory_has_one_cluster(release: SmallRelease, tmp_path: Path) -> None:
    """A second `up` is refused while the first one runs, and under another name of the cluster also
    later; the first one is not disturbed. READY is true, and pid files name the real processes."""
    data_dir = tmp_path / "data"
    up = ("up", "--release", release.path, "--data-dir", data_dir, "--port", free_port())
    async with running_cluster(release.path, data_dir) as cluster:
        async with Client(cluster.address, deadline_s=5.0) as client:
            whole = await client.retrieve(release.queries[0], minimum_coverage=1.0)
        running = {name: psutil.Process(cluster.pid(name)) for name in NAMES}
        second = await asyncio.to_thread(rangefinder, *up)
        configured = {
            name: f"{data_dir}/config/{name}.yaml" in process.cmdline()
            for name, process in running.items()
        }
        parents = {process.ppid() for process in running.values()}
    other = await asyncio.to_thread(rangefinder, *up, "--cluster", "other")

    assert whole.certificate.map_epoch == 1
    assert parents == {cluster.supervisor.pid}
    assert configured == dict.fromkeys(NAMES, True)
    require_refused(second, "in use by another rangefinder up")
    require_refused(other, "holds cluster local, not other")
    assert read_map(data_dir / "map/map.json").epoch == 1
    assert pid_files(data_dir) == []


async def test_ready_means_that_everything_answers(release: SmallRelease, tmp_path: Path) -> None:
    """READY is not printed while a node cannot answer, although the router does; then it is."""
    port = free_port()
    up = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rangefinder.cli.main", "up", "--release", str(release.path)),
        *("--data-dir", str(tmp_path), "--port", str(port)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert up.stdout is not None
    ready = asyncio.create_task(up.stdout.readline())
    pid_file = tmp_path / "run/node-1.pid"
    await until(lambda: pid_file.exists() and bool(pid_file.read_text()), within_s=20, what="node-1")
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGSTOP)
    async with Client(f"127.0.0.1:{port}", deadline_s=0.5) as client:

        async def is_half_there() -> bool:
            try:
                status = await client.cluster_status()
            except RangefinderError:
                return False
            return [node.healthy for node in status.nodes] == [True, False]

        await until_async(is_half_there, within_s=20, what="the router sees node-0 alone")
        was_ready = ready.done()
        os.kill(pid, signal.SIGCONT)
        async with asyncio.timeout(20):
            line = await ready
        whole = await client.retrieve(release.queries[0], minimum_coverage=1.0, deadline_s=5.0)
    up.terminate()
    await up.wait()

    assert not was_ready
    assert line.decode() == f"READY 127.0.0.1:{port}\n"
    assert whole.certificate.coverage == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_everything(
    release: SmallRelease, tmp_path: Path, number: signal.Signals
) -> None:
    """SIGINT or SIGTERM ends every process, a frozen one too, within seconds; no pid file stays."""
    async with running_cluster(release.path, tmp_path) as cluster:
        started = descendants(cluster.supervisor.pid)
        cluster.signal("node-1", signal.SIGSTOP)
        began_s = time.monotonic()
        cluster.supervisor.send_signal(number)
        code = await cluster.supervisor.wait()
        took_s = time.monotonic() - began_s

    assert code == 0
    assert took_s < STOP_S_MAX
    assert len(started) == len(NAMES)
    assert survivors(started, within_s=0) == []
    assert pid_files(tmp_path) == []


async def test_a_signal_during_the_start_stops_everything(
    release: SmallRelease, tmp_path: Path
) -> None:
    """SIGTERM as soon as there is a data directory, a lock, a map, a process, another one, an output:
    at each of these moments `up` ends and leaves nothing behind."""
    moments = ("run", "run/up.lock", "map/map.json", "run/node-0.pid", "run/router-0.pid", "output/*")
    for place, moment in enumerate(moments):
        await stop_at(moment, release, tmp_path / str(place))


async def stop_at(moment: str, release: SmallRelease, data_dir: Path) -> None:
    """Start a cluster and tell it to stop as soon as a file is there."""
    command = (
        *(sys.executable, "-m", "rangefinder.cli.main", "up", "--release", str(release.path)),
        *("--data-dir", str(data_dir), "--port", str(free_port())),
    )
    nowhere = asyncio.subprocess.DEVNULL
    up = await asyncio.create_subprocess_exec(*command, stdout=nowhere, stderr=nowhere)
    await until(lambda: any(data_dir.glob(moment)), within_s=20, what=moment)
    started = descendants(up.pid)
    up.terminate()
    async with asyncio.timeout(STOP_S_MAX):
        await up.wait()
    assert survivors(started, within_s=0) == []
    assert pid_files(data_dir) == []
    assert processes_of(data_dir) == []


async def test_nothing_outlives_a_killed_supervisor(release: SmallRelease, tmp_path: Path) -> None:
    """After kill -9 of `up` its processes end by themselves; a new `up`, of fewer nodes, on the same
    data directory answers under the next epoch, and the old pid files are gone."""
    async with running_cluster(release.path, tmp_path) as cluster:
        started = descendants(cluster.supervisor.pid)
        cluster.supervisor.kill()
        await cluster.supervisor.wait()
        left = await asyncio.to_thread(survivors, started, within_s=STOP_S_MAX)
    stale = pid_files(tmp_path)
    async with (
        running_cluster(release.path, tmp_path, node_count=1) as again,
        Client(again.address, deadline_s=5.0) as client,
    ):
        answer = await client.retrieve(release.queries[0], minimum_coverage=1.0)
        fresh = pid_files(tmp_path)

    assert left == []
    assert stale == ["node-0.pid", "node-1.pid", "router-0.pid"]
    assert fresh == ["node-0.pid", "router-0.pid"]
    assert answer.certificate.map_epoch == 2


async def test_a_file_that_cannot_be_written_is_named(release: SmallRelease, tmp_path: Path) -> None:
    """Where a process cannot get its output file, `up` ends with a line that names it, and alone."""
    (tmp_path / "output/node-1.txt").mkdir(parents=True)
    done = await asyncio.to_thread(
        rangefinder, "up", "--release", release.path, "--data-dir", tmp_path, "--port", free_port()
    )
    require_refused(done, "node-1: ", "output/node-1.txt: is a directory")
    assert processes_of(tmp_path) == []
    assert pid_files(tmp_path) == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts after hundredths of the time."""
    assert (supervised.RESTART_S_MIN, supervised.RESTART_S_MAX) == (2.0, 30.0)
    monkeypatch.setattr(supervised, "RESTART_S_MIN", 0.02)
    monkeypatch.setattr(supervised, "RESTART_S_MAX", 0.1)


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `python -m tests.kit.ending` is found."""
    monkeypatch.chdir(Path(__file__).resolve().parents[2])


def supervise(folder: Path, argument: str, told: list[str]) -> Supervised:
    """A process of tests/kit/ending.py under supervision."""
    for name in ("run", "output"):
        (folder / name).mkdir()
    launcher = FileLauncher(
        name="node-0", module="tests.kit.ending", arguments=[argument], data_dir=folder
    )
    return Supervised(name="node-0", launcher=launcher, tell=told.append)


def output(process: Supervised) -> str:
    assert isinstance(process.launcher, FileLauncher)
    path = process.launcher.output_file
    return path.read_text() if path.exists() else ""


def has_pid_file(process: Supervised) -> bool:
    assert isinstance(process.launcher, FileLauncher)
    return process.launcher.pid_file.exists()


@pytest.mark.usefixtures("quick")
async def test_restarts_come_ever_later(tmp_path: Path) -> None:
    """A process that keeps dying after the cluster has served is started again after the least delay,
    then after twice as long each time, up to the most."""
    told: list[str] = []
    process = supervise(tmp_path, "3", told)
    process.has_served = True
    running = asyncio.create_task(process.run())
    await until(lambda: len(told) >= 5, within_s=20, what="five restarts")
    await process.stop(1.0)
    await running

    delays = [
        re.fullmatch(r"node-0 ended \(exit code 3\), starts again in (.*) s", line) for line in told
    ]
    assert [found and found[1] for found in delays[:5]] == ["0.02", "0.04", "0.08", "0.1", "0.1"]
    assert not process.failure.done()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("code", "starts"), [("1", 3), ("65", 1)])
async def test_what_never_comes_up_is_given_up(tmp_path: Path, code: str, starts: int) -> None:
    """Before the cluster has served, a process that fails three times, or for damage once, is given up;
    its last words are told."""
    process = supervise(tmp_path, code, [])
    await process.run()

    with pytest.raises(ProcessFailed, match=f"node-0: about to {code}"):
        process.failure.result()
    assert output(process).count("about to") == starts
    assert not has_pid_file(process)


async def test_what_was_stopped_is_not_started_again(tmp_path: Path) -> None:
    """Told to stop while it waits for its restart, a process stays away; `run` ends at once."""
    told: list[str] = []
    process = supervise(tmp_path, "1", told)
    running = asyncio.create_task(process.run())
    await until(lambda: bool(told), within_s=20, what="the first end")
    async with asyncio.timeout(1.0):  # Less than the delay.
        await process.stop(10.0)
        await running

    assert output(process).count("about to") == 1


async def test_a_restart_that_was_asked_for_is_no_failure(tmp_path: Path) -> None:
    """Asked to restart, a process that listens and one that does not are started again at once, and
    nothing is told; the end of one that nobody asked for still is."""
    for name, argument in (("listens", "wait"), ("does not", "deaf")):
        told: list[str] = []
        (tmp_path / name).mkdir()
        process = supervise(tmp_path / name, argument, told)
        running = asyncio.create_task(process.run())
        await until_heard(process, argument, times=1)
        first = process.process
        await process.restart(0.1 if argument == "deaf" else 10.0)
        await until_heard(process, argument, times=2)

        assert first is not None and first.returncode in (-signal.SIGTERM, -signal.SIGKILL)
        assert told == []
        assert process.process is not None
        process.process.kill()
        await until(lambda: bool(told), within_s=20, what="an end that is told")  # noqa: B023
        await process.stop(1.0)
        await running


async def until_heard(process: Supervised, argument: str, *, times: int) -> None:
    """Wait until so many processes have said, last of all, what they were started with."""
    last = "deaf\n" if argument == "deaf" else "about to wait\n"
    lines = 2 if argument == "deaf" else 1
    await until(
        lambda: output(process).count(last) == times * lines, within_s=20, what=f"start {times}"
    )


async def test_what_does_not_listen_is_killed(tmp_path: Path) -> None:
    """A process that ignores SIGTERM is killed after its grace."""
    process = supervise(tmp_path, "deaf", [])
    running = asyncio.create_task(process.run())
    await until(
        lambda: "deaf\n" in output(process)[10:],
        within_s=20,
        what="deafness",
    )
    await process.stop(0.1)
    await running

    assert process.process is not None
    assert process.process.returncode == -signal.SIGKILL
    assert not has_pid_file(process)


async def test_a_process_stopped_while_it_starts_ends(tmp_path: Path) -> None:
    """Told to stop in the moment of its start, a process does not live on unseen."""
    process = supervise(tmp_path, "wait", [])
    running = asyncio.create_task(process.run())
    for _ in range(3):
        await asyncio.sleep(0)  # The start is under way.
    async with asyncio.timeout(10.0):
        await process.stop(5.0)
        await running

    assert process.process is None or process.process.returncode is not None
    assert not has_pid_file(process)
