"""T28: every replica of one shard is out of reach, and the others are searched as ever.

In short, five times; `make soak` has it long.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from statistics import median

import pytest

from rangefinder import Client
from rangefinder.cli.bench.fault_proxy import NO_FAULT, LinkFault
from rangefinder.cluster_map import Shard
from rangefinder.map_file import read_map
from tests.kit.faulty_links import FaultyLinks, faulty_links
from tests.kit.flow import require_right, steady_flow
from tests.kit.own_nodes import own_nodes
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.waiting import until_all_used

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 as it is")

TIMES = 5
FAULT_S = float(os.environ.get("RANGEFINDER_FAULT_S", "1.0"))
BLACK_HOLE = LinkFault(is_black_hole=True)


@dataclass(frozen=True, slots=True)
class Served:
    """Three nodes and three shards, each on two of them: no two shards are on the same ones."""

    shards: tuple[Shard, ...]
    links: FaultyLinks
    client: Client

    def set_fault(self, shard: Shard, fault: LinkFault) -> None:
        """On the way to every replica of a shard."""
        for replica in shard.replicas:
            self.links.set_fault(replica.node, fault)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return build_small_release(tmp_path_factory.mktemp("lost"), shard_count=3)


@pytest.fixture(scope="module")
async def served(
    release: SmallRelease, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("lost-shards")
    async with (
        own_nodes(release.path, folder, node_count=3, replica_count=2) as nodes,
        faulty_links(nodes.map_file, folder) as links,
        Client(links.address, deadline_s=5.0) as client,
    ):
        yield Served(read_map(nodes.map_file).serving_shards, links, client)


async def test_a_lost_shard_costs_its_range_and_nothing_else(
    served: Served, release: SmallRelease
) -> None:
    """Five times a shard is out of reach: nothing fails; soon every answer has all but its range, and
    says so, as quickly as before; afterwards answers are whole."""
    for round_number in range(TIMES):
        shard = served.shards[round_number % 3]
        await until_all_used(served.client, within_s=20)
        async with steady_flow(served.client, release) as flow:
            await flow.until_whole(within_s=10)
            await asyncio.sleep(0.5)
            healthy = [each.took_s for each in flow.asked]
            served.set_fault(shard, BLACK_HOLE)
            await asyncio.sleep(FAULT_S)
            settled = len(flow.asked)
            await asyncio.sleep(0.5)
            without = flow.asked[settled:]
            served.set_fault(shard, NO_FAULT)
            await flow.until_whole(within_s=20)
        assert flow.failed() == []
        assert len(without) > 10
        assert all(each.missed == {(shard.key_start, shard.key_end)} for each in without)
        assert median(each.took_s for each in without) < median(healthy) + 0.05
        require_right(flow, release)
