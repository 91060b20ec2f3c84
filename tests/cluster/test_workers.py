"""Several router workers at one port, and rolling restarts: nothing that was asked is lost."""

import asyncio
import itertools
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from rangefinder import Client
from rangefinder.telemetry.gathered import read_samples
from router.worker_launcher import SILENT_S_MAX
from tests.kit.own_router import command, own_config, own_router
from tests.kit.processes import START_S_MAX, Cluster, running_cluster
from tests.kit.ranked_world import build_ranked_release
from tests.kit.remains import descendants, survivors
from tests.kit.steady_load import steady_load
from tests.kit.waiting import until

STOP_S_MAX = 15.0
ROLL_S_MAX = 120.0
ROLL_COUNT = max(1, round(float(os.environ.get("RANGEFINDER_FAULT_S", "1.0")) / 10))
RESTART_S_MAX = 30.0  # It waits 2 s, and starts on a busy machine.
START_TIME = "rangefinder_start_time_seconds"
KILLED = "rangefinder_workers_killed_total"


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Two of everything."""
    folder = tmp_path_factory.mktemp("workers")
    options = ("--rankers", "2", "--router-workers", "2", "--search-threads", "1")
    async with running_cluster(
        build_ranked_release(folder), folder / "cluster", replica_count=2, options=options
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def dimension(cluster: Cluster) -> int:
    async with Client(cluster.address, deadline_s=10.0) as client:
        return (await client.cluster_map()).releases[0].dimension


class Asking:
    """Retrieve and Recommend in turn."""

    def __init__(self, dimension: int) -> None:
        self._vector, self._turn = np.ones(dimension, np.float32), itertools.count()
        self.partial = 0

    async def __call__(self, client: Client) -> None:
        if next(self._turn) % 2:
            found = (await client.retrieve(self._vector, 5)).certificate
        else:
            found = (await client.recommend(user_embedding=self._vector, item_count=5)).certificate
        self.partial += found.coverage < 1


def pids(cluster: Cluster) -> dict[str, int]:
    """Of every process: those of `up`, and the workers of its router by number."""
    names = ("node-0", "node-1", "ranker-0", "ranker-1")
    workers = descendants(cluster.pid("router-0"))
    named = {f"worker-{place}": worker.pid for place, worker in enumerate(workers)}
    return {name: cluster.pid(name) for name in names} | named


async def roll(cluster: Cluster) -> list[str]:
    """Have `up` replace every process; returns what it tells."""
    told: list[str] = []
    cluster.supervisor.send_signal(signal.SIGHUP)
    assert cluster.supervisor.stderr is not None
    async with asyncio.timeout(ROLL_S_MAX):
        while "rangefinder: restarted" not in told:
            told.append((await cluster.supervisor.stderr.readline()).decode().strip())
    return told


async def test_a_rolling_restart_loses_no_request(cluster: Cluster, dimension: int) -> None:
    """SIGHUP to `up`: every node, ranker and worker is another process afterwards, one after another,
    and of the requests made meanwhile none fails, nor covers less than all."""
    asking = Asking(dimension)
    for _ in range(ROLL_COUNT):
        before = pids(cluster)
        async with steady_load(cluster.address, asking) as load:
            told = await roll(cluster)
            answered_meanwhile = load.answered
        after = pids(cluster)
        assert load.failed == []
        assert answered_meanwhile > 100
        assert before.keys() == after.keys()
        assert set(before.values()) & set(after.values()) == set()
        assert told == ["rangefinder: restarting one process after another", "rangefinder: restarted"]
    assert asking.partial == 0


async def test_a_killed_worker_comes_back_while_the_other_answers(
    cluster: Cluster, tmp_path: Path, dimension: int
) -> None:
    """After kill -9 of a worker every new connection is served by the other one, until the killed one
    is there again; metrics name both, each once."""
    async with own_router(cluster, tmp_path) as own:
        assert own.config.metrics is not None
        first = own.workers()
        first["own/1"].kill()
        await asyncio.to_thread(first["own/1"].wait, STOP_S_MAX)
        for _ in range(5):
            async with Client(own.config.listen, deadline_s=10.0) as client:
                await client.retrieve(np.ones(dimension, np.float32), 5, minimum_coverage=1.0)
        alone = await asyncio.to_thread(read_samples, own.config.metrics, START_TIME)
        await until(
            lambda: len(read_samples(own.config.metrics or "", START_TIME)) == 2,
            within_s=RESTART_S_MAX,
            what="the killed worker is there again",
        )
        second = own.workers()

    assert len(alone) == 1
    assert first["own/2"].pid == second["own/2"].pid
    assert first["own/1"].pid != second["own/1"].pid


async def test_a_frozen_worker_is_replaced(cluster: Cluster, tmp_path: Path, dimension: int) -> None:
    """It keeps its share of new connections, so after ten seconds it is killed and started again; one
    that is frozen for three is left alone. Log and metrics say so."""
    async with own_router(cluster, tmp_path) as own:
        first = own.workers()
        first["own/2"].suspend()
        await asyncio.sleep(3)
        first["own/2"].resume()
        first["own/1"].suspend()
        await until(
            lambda: "worker_silent" in own.output.read_text(),
            within_s=SILENT_S_MAX + 5,
            what="the frozen worker is killed",
        )
        await until(
            lambda: len(read_samples(own.config.metrics or "", START_TIME)) == 2,
            within_s=RESTART_S_MAX,
            what="another is there in its place",
        )
        killed = await asyncio.to_thread(read_samples, own.config.metrics or "", KILLED)
        second = own.workers()
        for _ in range(10):
            async with Client(own.config.listen, deadline_s=10.0) as client:
                await client.retrieve(np.ones(dimension, np.float32), 5, minimum_coverage=1.0)

    assert first["own/2"].pid == second["own/2"].pid
    assert first["own/1"].pid != second["own/1"].pid
    assert killed == [1.0]


async def test_sigterm_loses_nothing_that_was_accepted(
    cluster: Cluster, tmp_path: Path, dimension: int
) -> None:
    """SIGTERM under load: each request is answered, or refused before anything was done for it; all
    processes end, with code 0."""
    async with own_router(cluster, tmp_path) as own:
        workers = own.workers()
        async with steady_load(own.config.listen, Asking(dimension)) as load:
            await until(lambda: load.answered > 50, within_s=STOP_S_MAX, what="answers")
            own.process.terminate()
            code = await asyncio.wait_for(own.process.wait(), STOP_S_MAX)
            await until(lambda: bool(load.failed), within_s=STOP_S_MAX, what="a refused connection")
    refused_before_work = ("failed to connect", "the server was about to end")

    assert code == 0
    assert survivors(list(workers.values()), within_s=0) == []
    assert [
        failure for failure in load.failed if not failure.message.startswith(refused_before_work)
    ] == []


async def test_nothing_outlives_a_killed_router(cluster: Cluster, tmp_path: Path) -> None:
    """After kill -9 of the process that watches over them, the workers end by themselves."""
    async with own_router(cluster, tmp_path) as own:
        workers = list(own.workers().values())
        own.process.kill()
        await own.process.wait()
        left = await asyncio.to_thread(survivors, workers, within_s=STOP_S_MAX)

    assert len(workers) == 2
    assert left == []


async def test_a_closed_terminal_ends_a_router(cluster: Cluster, tmp_path: Path) -> None:
    """The SIGHUP of a terminal that was closed asks to end, not to replace workers."""
    keyboard, terminal = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *command(own_config(cluster), tmp_path),
        stdin=terminal,
        stdout=asyncio.subprocess.PIPE,
    )
    os.close(terminal)
    assert process.stdout is not None
    async with asyncio.timeout(START_S_MAX):
        while b"router_ready" not in await process.stdout.readline():
            pass
    os.close(keyboard)
    process.send_signal(signal.SIGHUP)
    output = (await asyncio.wait_for(process.communicate(), STOP_S_MAX))[0].decode()

    assert process.returncode == 0
    assert "workers_replacing" not in output


def run_router(config_command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(config_command, capture_output=True, text=True, timeout=60, check=False)


async def test_a_router_that_cannot_start_says_why_once(cluster: Cluster, tmp_path: Path) -> None:
    """A port that others share, a release that is not there, metrics at a port in use, a number of
    workers out of bounds: one line, exit code 1."""
    taken = cluster.address
    missing, folder = tmp_path / "missing", tmp_path
    wrong = {
        "shared port, workers": (own_config(cluster, name="a", listen=taken), taken),
        "shared port, one process": (own_config(cluster, name="b", listen=taken, workers=1), taken),
        "no release": (own_config(cluster, name="c", release=missing), f"{missing}/release.yaml"),
        "metrics": (own_config(cluster, name="d", metrics=taken), f"{taken}: metrics: "),
    }
    for name, (config, words) in wrong.items():
        done = await asyncio.to_thread(run_router, command(config, folder))
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert (done.returncode, len(errors)) == (1, 1), (name, done.stderr)
        assert words in errors[0], name
        assert "Traceback" not in done.stderr + done.stdout, name
    too_many = [*command(own_config(cluster, name="e"), folder), "--workers", "0"]
    done = await asyncio.to_thread(run_router, too_many)
    assert (1, "error: command line: workers: ") == (done.returncode, done.stderr[:30])
