"""T27: three times as many requests as can be answered, five times, each followed by as many as can be.

How much is answered then is for `rangefinder bench` to measure; here it is that nothing gives way.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import grpc
import psutil
import pytest

from rangefinder.v1.recommendation_pb2 import RetrieveBatchRequest
from rangefinder.v1.types_pb2 import VectorBlock
from tests.kit.processes import Cluster, running_cluster
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.waiting import until_async

METHOD = "/rangefinder.v1.RecommendationService/RetrieveBatch"
TIMES = 5
FAULT_S = float(os.environ.get("RANGEFINDER_FAULT_S", "1.0"))
DEADLINE_S = 0.5
LANES = 32
GROWTH_BYTES_MAX = 100 << 20
REFUSALS = {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}


@dataclass(slots=True)
class Outcomes:
    """How requests ended, and how many seconds each took."""

    took_s: dict[str, list[float]] = field(default_factory=dict)

    def count(self, status: str) -> int:
        return len(self.took_s.get(status, ()))

    def failed(self) -> dict[str, int]:
        return {status: len(took) for status, took in self.took_s.items() if status != "OK"}


class Asking:
    """Batches that cost the servers far more than the caller."""

    def __init__(self, channel: grpc.aio.Channel, release: SmallRelease) -> None:
        rows = release.queries.repeat(5, axis=0)
        block = VectorBlock(float32_le=rows.tobytes(), count=len(rows))
        request = RetrieveBatchRequest(queries=block, item_count=10, exact=True)
        self._method: Any = channel.unary_unary(METHOD)
        self._request = request.SerializeToString()

    async def once(self, outcomes: Outcomes) -> None:
        began_s = time.monotonic()
        status = (await self._method(self._request, timeout=DEADLINE_S).code()).name
        outcomes.took_s.setdefault(status, []).append(time.monotonic() - began_s)

    async def as_fast_as_answered(self, during_s: float) -> Outcomes:
        """On some lanes, each asking again as soon as it is answered."""
        outcomes, ends_s = Outcomes(), time.monotonic() + during_s

        async def lane() -> None:
            while time.monotonic() < ends_s:
                await self.once(outcomes)

        await asyncio.gather(*(lane() for _ in range(LANES)))
        return outcomes

    async def at_rate(self, rate: float, during_s: float) -> Outcomes:
        """So many a second, whatever becomes of them."""
        outcomes, began_s = Outcomes(), time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(round(rate * during_s)):
                await asyncio.sleep(began_s + number / rate - time.monotonic())
                group.create_task(self.once(outcomes), name="ask")
        return outcomes


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return build_small_release(tmp_path_factory.mktemp("overload"))


@pytest.fixture(scope="module")
async def cluster(
    release: SmallRelease, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Cluster]:
    folder = tmp_path_factory.mktemp("overloaded")
    async with running_cluster(release.path, folder / "cluster") as cluster:
        yield cluster


async def test_too_much_is_refused_and_the_rest_is_answered(
    cluster: Cluster, release: SmallRelease
) -> None:
    """Most of what could be answered is, others are refused at once or meet their deadline; memory is
    bounded; and when there is less to do again, soon none fails."""
    memory = psutil.Process(cluster.pid("router-0")).memory_info
    async with grpc.aio.insecure_channel(cluster.address) as channel:
        asking = Asking(channel, release)
        await asking.as_fast_as_answered(0.5)
        peak = max([(await asking.as_fast_as_answered(0.5)).count("OK") / 0.5 for _ in range(3)])
        before = memory().rss

        async def none_fails() -> bool:
            return not (await asking.at_rate(peak / 4, 0.5)).failed()

        refused_s: list[float] = []
        for _ in range(TIMES):
            over = await asking.at_rate(3 * peak, FAULT_S)
            calm_s = await until_async(none_fails, within_s=10, what="nothing fails any more")
            print(f"{peak=} {FAULT_S=} answered={over.count('OK')} {over.failed()} {calm_s=:.2f}")
            assert over.took_s.keys() == {"OK", *over.took_s.keys() & REFUSALS}
            assert over.count("OK") > 0.5 * peak * FAULT_S
            refused_s += over.took_s.get("RESOURCE_EXHAUSTED", [])
    assert median(refused_s) < 0.1
    assert memory().rss - before < GROWTH_BYTES_MAX
