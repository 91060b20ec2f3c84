"""Three nodes with every shard each, and one of them at fault: callers must not notice.

Faults T3, T16, T17, T18 and T28 in short, five times or more each; `make soak` has them long.
"""

import asyncio
import contextlib
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from rangefinder import Client, RangefinderError, Retrieved
from rangefinder.cli.bench.fault_proxy import NO_FAULT, LinkFault
from tests.kit.faulty_links import FaultyLinks, faulty_links
from tests.kit.flow import LANES, Asked, Flow, require_right, steady_flow
from tests.kit.processes import Cluster, running_cluster
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.waiting import until_async

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 as it is")

NODES = ("node-0", "node-1", "node-2")
TIMES = 5
HEALTHY_S = 0.5
FAULT_S = float(os.environ.get("RANGEFINDER_FAULT_S", "1.0"))

SLOW = LinkFault(delay_s=0.1)  # A round trip takes 200 ms longer, as long as a caller's deadline.
BLACK_HOLE = LinkFault(is_black_hole=True)
NARROW = LinkFault(bytes_per_s=12_500)


@dataclass(frozen=True, slots=True)
class Served:
    cluster: Cluster
    links: FaultyLinks
    client: Client

    async def until_well(self) -> None:
        """Every node is used again, and none is eased in any more than tests can wait for."""

        async def all_are_used() -> bool:
            with contextlib.suppress(RangefinderError):
                replicas = (await self.client.cluster_status(deadline_s=2.0)).replicas
                return all(each.healthy for each in replicas)
            return False

        await until_async(all_are_used, within_s=20, what="every node is used")

    def sent(self) -> dict[str, float]:
        """Queries by why they were sent to a node, so far."""
        url = f"http://{self.links.metrics}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            lines = response.read().decode().splitlines()
        return {
            line.split('"')[1]: float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("rangefinder_queries_sent_total{")
        }


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return build_small_release(tmp_path_factory.mktemp("replicas"), shard_count=2)


@pytest.fixture(scope="module")
async def served(
    release: SmallRelease, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("replicated")
    async with (
        running_cluster(release.path, folder / "cluster", node_count=3, replica_count=3) as cluster,
        faulty_links(cluster, folder) as links,
        Client(links.address, deadline_s=5.0) as client,
    ):
        yield Served(cluster, links, client)


@asynccontextmanager
async def whole_flow(served: Served, release: SmallRelease) -> AsyncIterator[Flow]:
    """Requests of which every one is to be answered whole, and right."""
    await served.until_well()
    async with steady_flow(served.client, release) as flow:
        await flow.until_whole(within_s=10)
        flow.asked.clear()
        yield flow
    require_right(flow, release)


def took_s(asked: list[Asked], share: float) -> float:
    return float(np.quantile([each.took_s for each in asked], share))


def partial(flow: Flow) -> list[Asked]:
    return [each for each in flow.asked if isinstance(each.outcome, Retrieved) and each.coverage < 1]


async def test_a_slow_node_is_not_noticed(served: Served, release: SmallRelease) -> None:
    """T17: five times one node takes 200 ms longer. Nothing fails, the median is as before, and extra
    queries stay under the budget. Answers are partial for a moment at most: what was on its way
    to it, while the budget of a quiet router had too few hedges for all at once."""
    for round_number in range(TIMES):
        async with whole_flow(served, release) as flow:
            await asyncio.sleep(HEALTHY_S)
            healthy, before = list(flow.asked), served.sent()
            served.links.set_fault(NODES[round_number % 3], SLOW)
            flow.asked.clear()
            await asyncio.sleep(FAULT_S)
            after = served.sent()
            served.links.set_fault(NODES[round_number % 3], NO_FAULT)
        assert flow.failed() == []
        assert len(partial(flow)) <= LANES
        assert took_s(flow.asked, 0.5) < took_s(healthy, 0.95) + 0.05
        extra = sum(after[kind] - before[kind] for kind in ("hedge", "retry"))
        assert extra <= 0.2 * (after["first"] - before["first"]) + 20


@pytest.mark.parametrize("fault", [BLACK_HOLE, NARROW], ids=["black-hole", "narrow"])
async def test_a_lost_line_is_not_noticed(
    served: Served, release: SmallRelease, fault: LinkFault
) -> None:
    """T16, T18: what is sent to one node is swallowed, or passes at 100 kbit/s. Nothing fails, hardly
    an answer is partial, and soon nobody waits for the node."""
    for round_number in range(TIMES):
        node = NODES[round_number % 3]
        async with whole_flow(served, release) as flow:
            served.links.set_fault(node, fault)
            await asyncio.sleep(FAULT_S)
            settled = len(flow.asked)
            await asyncio.sleep(HEALTHY_S)
            served.links.set_fault(node, NO_FAULT)
        assert flow.failed() == []
        assert len(partial(flow)) <= LANES
        assert took_s(flow.asked[settled:], 0.5) < 0.1


async def test_a_killed_node_fails_nothing(served: Served, release: SmallRelease) -> None:
    """T3: each node in turn is killed under requests, five times: none fails, none is partial."""
    for round_number in range(TIMES):
        async with whole_flow(served, release) as flow:
            served.cluster.signal(NODES[round_number % 3], signal.SIGKILL)
            await asyncio.sleep(0.5)
        assert flow.failed() == []
        assert partial(flow) == []
        assert len(flow.asked) > 10


async def test_with_all_replicas_gone_the_answer_says_so(served: Served, release: SmallRelease) -> None:
    """T28: no line to any node passes anything: coverage 0 in time, and whole again afterwards."""
    await served.until_well()
    async with steady_flow(served.client, release) as flow:
        await flow.until_whole(within_s=10)
        for node in NODES:
            served.links.set_fault(node, BLACK_HOLE)
        await flow.until_one(lambda asked: asked.coverage == 0, within_s=10, what="coverage 0")
        for node in NODES:
            served.links.set_fault(node, NO_FAULT)
        await flow.until_whole(within_s=20)
    assert flow.failed() == []
    require_right(flow, release)
