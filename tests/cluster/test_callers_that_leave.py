"""Callers with little time, and callers that go away (T30): nothing of them stays behind.

RANGEFINDER_LEAVING_CALLS says how many are cancelled, and how many expire; `make soak` has a million.
"""

import asyncio
import os
import random
import re
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from rangefinder import Client, RangefinderError
from rangefinder.answers import RetrievedBatch
from rangefinder.client import RetrieveStream
from rangefinder.v1.recommendation_pb2 import RetrieveRequest
from rangefinder.v1.types_pb2 import Vector
from tests.kit.processes import Cluster, running_cluster
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.steady_load import steady_load
from tests.kit.waiting import until_async

COUNT = int(os.environ.get("RANGEFINDER_LEAVING_CALLS", "2000"))
LANES = 40
STREAM_LANES = 8
GROWTH_BYTES_MAX = 20 << 20
PROCESSES = ("router-0", "node-0", "node-1")
METHOD = "/rangefinder.v1.RecommendationService/Retrieve"

# What says that something is still under way, by process.
LEFT = (
    *("rangefinder_calls_running", "rangefinder_calls_waiting", "rangefinder_queries_waiting"),
    *("rangefinder_batches_out", "rangefinder_searches_running"),
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return build_small_release(tmp_path_factory.mktemp("leaving"))


def left_over(cluster: Cluster) -> dict[str, float]:
    """What any process has under way."""
    found = {}
    for name in PROCESSES:
        config = (cluster.data_dir / "config" / f"{name}.yaml").read_text()
        address = re.search(r"^metrics: (\S+)$", config, re.MULTILINE)
        assert address is not None
        with urllib.request.urlopen(f"http://{address[1]}/metrics", timeout=10) as response:
            for line in response.read().decode().splitlines():
                metric, _, value = line.rpartition(" ")
                if metric in LEFT and float(value):
                    found[f"{name}: {metric}"] = float(value)
    return found


class Leaving:
    """Callers that leave, until as many calls as wanted were cancelled, and as many have expired."""

    def __init__(self, release: SmallRelease, count: int, seed: int) -> None:
        self.ends: Counter[str] = Counter()  # By status.
        self._count, self._chance, self._queries = count, random.Random(seed), release.queries
        self._requests = [
            RetrieveRequest(
                query=Vector(values=query.tolist()), item_count=10, exact=exact
            ).SerializeToString()
            for query in release.queries
            for exact in (False, True)
        ]

    @property
    def is_over(self) -> bool:
        return min(self.ends["CANCELLED"], self.ends["DEADLINE_EXCEEDED"]) >= self._count

    def _is_to_cancel(self) -> bool:
        """What is still missing more of."""
        return self.ends["CANCELLED"] <= self.ends["DEADLINE_EXCEEDED"]

    async def call_often(self, channel: grpc.aio.Channel) -> None:
        """Calls that are cancelled within 10 ms, or have 1 to 40 ms."""
        method: Any = channel.unary_unary(METHOD)
        chance = self._chance
        while not self.is_over:
            cancels = self._is_to_cancel()
            allowed_s = 1.0 if cancels else chance.uniform(0.001, 0.04)
            call = method(chance.choice(self._requests), timeout=allowed_s)
            waiting = asyncio.ensure_future(call.code())
            if cancels:
                await asyncio.wait((waiting,), timeout=chance.uniform(0.0, 0.01))
                call.cancel()
            self.ends[(await waiting).name] += 1

    async def stream_often(self, stream: RetrieveStream) -> None:
        """The same with batches of a stream."""
        chance = self._chance
        while not self.is_over:
            cancels = self._is_to_cancel()
            allowed_s = 1.0 if cancels else chance.uniform(0.001, 0.04)
            asking = asyncio.ensure_future(
                stream.retrieve_batch(self._queries, 10, exact=True, deadline_s=allowed_s)
            )
            if cancels:
                await asyncio.wait((asking,), timeout=chance.uniform(0.0, 0.01))
                asking.cancel()
            await asyncio.wait((asking,))
            self.ends[status_of(asking)] += 1


def status_of(asking: "asyncio.Future[RetrievedBatch]") -> str:
    """How a batch ended, as a status of gRPC."""
    if asking.cancelled():
        return "CANCELLED"
    error = asking.exception()
    if error is None:
        return "OK"
    assert isinstance(error, RangefinderError), error
    return error.status


async def leave_often(cluster: Cluster, release: SmallRelease, count: int, seed: int) -> Counter[str]:
    """Have `count` calls cancelled and as many expire; returns how calls ended."""
    leaving = Leaving(release, count, seed)
    async with (
        grpc.aio.insecure_channel(cluster.address) as channel,
        Client(cluster.address) as client,
        client.stream() as stream,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(LANES):
            group.create_task(leaving.call_often(channel), name="call-often")
        for _ in range(STREAM_LANES):
            group.create_task(leaving.stream_often(stream), name="stream-often")
    return leaving.ends


async def test_nothing_stays_of_callers_that_leave(release: SmallRelease, tmp_path: Path) -> None:
    """Thousands of calls and batches expire or are cancelled in every moment of their life: no process
    grows, no call, batch or search is left over, and meanwhile others are answered as ever."""

    async def ask(client: Client) -> None:
        await client.retrieve(release.queries[0], 10, minimum_coverage=1.0)

    async with running_cluster(release.path, tmp_path / "cluster") as cluster:
        await leave_often(cluster, release, min(COUNT, 20_000), seed=1)
        processes = [psutil.Process(cluster.pid(name)) for name in PROCESSES]
        before = [process.memory_info().rss for process in processes]
        async with steady_load(cluster.address, ask) as others:
            ends = await leave_often(cluster, release, COUNT, seed=2)
        after = [process.memory_info().rss for process in processes]
        growth = dict(zip(PROCESSES, np.subtract(after, before).tolist(), strict=True))
        print(f"ended: {dict(ends)}; grown by bytes: {growth}; others answered: {others.answered}")
        assert max(growth.values()) < GROWTH_BYTES_MAX

        async def nothing_is_left() -> bool:
            return not await asyncio.to_thread(left_over, cluster)

        await until_async(nothing_is_left, within_s=15, what="nothing is under way")
        assert all("Traceback" not in cluster.output(name) for name in PROCESSES)
    assert {"CANCELLED", "DEADLINE_EXCEEDED", "OK"} == set(ends)
    assert ([], True) == (others.failed, others.answered > 10)
