"""Three nodes with every shard each, and one of them at fault: callers must not notice.

Faults T3, T16, T17, T18 and T19 in short, five times or more each; `make soak` has them long.
"""

import asyncio
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from rangefinder import Client
from rangefinder.cli.bench.fault_proxy import NO_FAULT, LinkFault
from tests.kit.faulty_links import FaultyLinks, faulty_links
from tests.kit.flow import LANES, Asked, Flow, require_right, steady_flow
from tests.kit.own_nodes import OwnNodes, own_nodes
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.waiting import until_all_used

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 as it is")

NODES = ("node-0", "node-1", "node-2")
TIMES = 5
HEALTHY_S = 0.5
FAULT_S = float(os.environ.get("RANGEFINDER_FAULT_S", "1.0"))

SLOW = LinkFault(delay_s=0.1)  # A round trip takes 200 ms longer, as long as a caller's deadline.
BLACK_HOLE = LinkFault(is_black_hole=True)
NARROW = LinkFault(bytes_per_s=12_500)

KILL_COUNT = max(TIMES, round(FAULT_S / 3.0))
FLAP_S = 0.1
FLAP_EVERY_S = min(FAULT_S, 3.0)
FLAP_COUNT = max(TIMES, round(FAULT_S / FLAP_EVERY_S))
HELD = LinkFault(delay_s=FLAP_S)


@dataclass(frozen=True, slots=True)
class Served:
    nodes: OwnNodes
    links: FaultyLinks
    client: Client

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
        own_nodes(release.path, folder, node_count=3, replica_count=3) as nodes,
        faulty_links(nodes.map_file, folder) as links,
        Client(links.address, deadline_s=5.0) as client,
    ):
        yield Served(nodes, links, client)


@asynccontextmanager
async def whole_flow(served: Served, release: SmallRelease) -> AsyncIterator[Flow]:
    """Requests of which every one is to be answered whole, and right."""
    await until_all_used(served.client, within_s=20)
    async with steady_flow(served.client, release) as flow:
        await flow.until_whole(within_s=10)
        flow.asked.clear()
        yield flow
    require_right(flow, release)


def took_s(asked: list[Asked], share: float) -> float:
    return float(np.quantile([each.took_s for each in asked], share))


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
        assert len(flow.partial()) <= LANES
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
        assert len(flow.partial()) <= LANES
        assert took_s(flow.asked[settled:], 0.5) < 0.1


async def test_a_killed_node_fails_nothing(served: Served, release: SmallRelease) -> None:
    """T3: each node in turn is killed, and started again: no request fails, none is partial."""
    for round_number in range(KILL_COUNT):
        node = NODES[round_number % 3]
        async with whole_flow(served, release) as flow:
            await served.nodes.stop(node, signal.SIGKILL)
            await asyncio.sleep(0.2)
            await served.nodes.start(node)
        assert flow.failed() == []
        assert flow.partial() == []
        assert len(flow.asked) > 10


@pytest.mark.parametrize("fault", [BLACK_HOLE, HELD], ids=["lost", "held"])
async def test_a_line_that_flaps_is_not_noticed(
    served: Served, release: SmallRelease, fault: LinkFault
) -> None:
    """T19: the line to one node is gone for 100 ms, again and again; what is on it is lost with its
    connection, or late. Nothing fails, hardly an answer is partial, and the node is used afterwards."""
    async with whole_flow(served, release) as flow:
        for _ in range(FLAP_COUNT):
            served.links.set_fault(NODES[0], fault)
            await asyncio.sleep(FLAP_S)
            served.links.set_fault(NODES[0], NO_FAULT)
            await asyncio.sleep(FLAP_EVERY_S - FLAP_S)
        await until_all_used(served.client, within_s=20)
    assert flow.failed() == []
    assert len(flow.partial()) <= LANES
    assert took_s(flow.asked, 0.5) < 0.1
