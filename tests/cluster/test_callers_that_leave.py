"""Callers with little time, and callers that go away (T30): nothing of them stays behind.

RANGEFINDER_LEAVING_CALLS says how many are cancelled, and how many expire; `make soak` has a million.
"""

import asyncio
import os
import re
import signal
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from rangefinder import Client
from rangefinder.v1.recommendation_pb2 import (
    RetrieveBatchRequest,
    RetrieveRequest,
    RetrieveStreamRequest,
)
from rangefinder.v1.types_pb2 import Vector, VectorBlock
from tests.kit.leaving import leave_often
from tests.kit.processes import Cluster, running_cluster
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.steady_load import steady_load
from tests.kit.waiting import until_async

COUNT = int(os.environ.get("RANGEFINDER_LEAVING_CALLS", "2000"))
GROWTH_BYTES_MAX = (20 if COUNT <= 100_000 else 50) << 20
ROUTER = ("router-0",)
PROCESSES = (*ROUTER, "node-0", "node-1")
METHOD = "/rangefinder.v1.RecommendationService/Retrieve"

# What says that something is still under way, by process.
LEFT = (
    *("rangefinder_calls_running", "rangefinder_calls_waiting", "rangefinder_queries_waiting"),
    *("rangefinder_batches_out", "rangefinder_searches_running"),
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return build_small_release(tmp_path_factory.mktemp("leaving"))


def left_over(cluster: Cluster, names: tuple[str, ...] = PROCESSES) -> dict[str, float]:
    """What some processes have under way."""
    found = {}
    for name in names:
        config = (cluster.data_dir / "config" / f"{name}.yaml").read_text()
        address = re.search(r"^metrics: (\S+)$", config, re.MULTILINE)
        assert address is not None
        with urllib.request.urlopen(f"http://{address[1]}/metrics", timeout=10) as response:
            for line in response.read().decode().splitlines():
                metric, _, value = line.rpartition(" ")
                if metric in LEFT and float(value):
                    found[f"{name}: {metric}"] = float(value)
    return found


async def is_searching(cluster: Cluster) -> bool:
    return "router-0: rangefinder_batches_out" in await asyncio.to_thread(left_over, cluster, ROUTER)


async def is_idle(cluster: Cluster) -> bool:
    return not await asyncio.to_thread(left_over, cluster, ROUTER)


@contextmanager
def stopped(cluster: Cluster, *names: str) -> Iterator[None]:
    """Processes that are frozen meanwhile."""
    for name in names:
        cluster.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        for name in names:
            cluster.signal(name, signal.SIGCONT)


Rows = npt.NDArray[np.float32]
Leave = Callable[[grpc.aio.Channel, Rows, Callable[[], Awaitable[object]]], Awaitable[None]]


async def leave_call(
    channel: grpc.aio.Channel, query: Rows, asked: Callable[[], Awaitable[object]]
) -> None:
    """Cancel a call once nodes are asked."""
    request = RetrieveRequest(query=Vector(values=query.tolist()), item_count=10)
    method: Any = channel.unary_unary(METHOD)
    call = method(request.SerializeToString(), timeout=9.0)
    await asked()
    call.cancel()


async def leave_batch(
    channel: grpc.aio.Channel, query: Rows, asked: Callable[[], Awaitable[object]]
) -> None:
    """Cancel a batch of a stream that goes on."""
    queries = VectorBlock(float32_le=query.astype("<f4").tobytes(), count=1)
    batch = RetrieveBatchRequest(queries=queries, item_count=10)
    request = RetrieveStreamRequest(batch_id=1, batch=batch, time_allowed_ms=9_000)
    method: Any = channel.stream_stream(f"{METHOD}Stream")
    call = method(timeout=9.0)
    await call.write(request.SerializeToString())
    await asked()
    await call.write(RetrieveStreamRequest(batch_id=1, cancel=True).SerializeToString())


@pytest.mark.parametrize("leave", [leave_call, leave_batch])
async def test_nobody_searches_for_a_caller_that_has_left(
    release: SmallRelease, tmp_path: Path, leave: Leave
) -> None:
    """Long before its deadline the router has dropped its batch, which frozen nodes had got."""
    async with (
        running_cluster(release.path, tmp_path / "cluster") as cluster,
        grpc.aio.insecure_channel(cluster.address) as channel,
    ):
        with stopped(cluster, "node-0", "node-1"):
            asked = partial(until_async, partial(is_searching, cluster), within_s=5, what="it is out")
            await leave(channel, release.queries[0], asked)
            await until_async(partial(is_idle, cluster), within_s=3, what="it is dropped")


async def test_nothing_stays_of_callers_that_leave(release: SmallRelease, tmp_path: Path) -> None:
    """Thousands of calls and batches expire or are cancelled in every moment of their life: no process
    grows, no call, batch or search is left over, and meanwhile others are answered as ever."""

    async def ask(client: Client) -> None:
        await client.retrieve(release.queries[0], 10, minimum_coverage=1.0)

    async with running_cluster(release.path, tmp_path / "cluster") as cluster:
        await leave_often(cluster.address, release, min(COUNT, 20_000), seed=1)
        processes = [psutil.Process(cluster.pid(name)) for name in PROCESSES]
        before = [process.memory_info().rss for process in processes]
        async with steady_load(cluster.address, ask) as others:
            ends = await leave_often(cluster.address, release, COUNT, seed=2)
        after = [process.memory_info().rss for process in processes]
        growth = dict(zip(PROCESSES, np.subtract(after, before).tolist(), strict=True))
        print(f"ended: {dict(ends)}; grown by bytes: {growth}; others answered: {others.answered}")
        assert max(growth.values()) < GROWTH_BYTES_MAX

        async def nothing_is_left() -> bool:
            return not await asyncio.to_thread(left_over, cluster)

        await until_async(nothing_is_left, within_s=15, what="nothing is under way")
        assert all("Traceback" not in cluster.output(name) for name in PROCESSES)
    # With so many that are late, admission may take some for too many.
    assert {"CANCELLED", "DEADLINE_EXCEEDED", "OK"} == set(ends) - {"RESOURCE_EXHAUSTED"}
    assert ([], True) == (others.failed, others.answered > 10)
