"""T26: processes of two versions side by side. An upgrade is a rolling restart; meanwhile, and after a
downgrade, each process meets messages with fields that it does not know, or without the newest ones.

The other version is made on the wire, so that no old one need be kept: see tests/kit/versions.py.
"""

import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from rangefinder import Client
from rangefinder.v1 import cluster_pb2, item_pb2, recommendation_pb2
from tests.kit.changing_links import Change, Changes, changing_calls, changing_links, nothing
from tests.kit.flow import require_right, steady_flow
from tests.kit.own_nodes import OwnNodes, own_nodes
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.steady_load import ItemReading, steady_load
from tests.kit.versions import newer, older
from tests.kit.waiting import until_all_used

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 as it is")

NODES = ("node-0", "node-1")
BACK_S_MAX = 15.0

# Up, down again, and to an older one: with two nodes, six restarts. `make soak` goes round again.
ROUND_COUNT = max(1, round(float(os.environ.get("RANGEFINDER_FAULT_S", "1.0")) / 10))
ROLLS: tuple[Change, ...] = (newer, nothing, older) * ROUND_COUNT

CALLED = [
    service
    for file in (recommendation_pb2, item_pb2, cluster_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]


@dataclass(frozen=True, slots=True)
class Served:
    """Two nodes with every shard each, and a router; between them, what is changed."""

    nodes: OwnNodes
    address: str
    changes: dict[str, Changes]
    client: Client

    async def restart(self, node: str, change: Change) -> None:
        """Restart a node, as another version."""
        await self.nodes.stop(node)
        self.changes[node].there = self.changes[node].back = change
        await self.nodes.start(node)
        await until_all_used(self.client, within_s=BACK_S_MAX)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return build_small_release(tmp_path_factory.mktemp("versions"), shard_count=2)


@pytest.fixture(scope="module")
async def served(
    release: SmallRelease, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("versioned")
    async with (
        own_nodes(release.path, folder, node_count=2, replica_count=2) as nodes,
        changing_links(nodes, folder) as (address, changes),
        Client(address, deadline_s=5.0) as client,
    ):
        await until_all_used(client, within_s=BACK_S_MAX)
        yield Served(nodes, address, changes, client)


async def test_a_rolling_change_of_version_fails_no_read(served: Served, release: SmallRelease) -> None:
    """Node after node is restarted as a newer version, as this one again, then as an older one: no
    search fails, is partial or wrong, and every item is read."""
    reading = ItemReading(range(0, 5_000, 250))
    async with (
        steady_flow(served.client, release) as flow,
        steady_load(served.address, reading) as load,
    ):
        for change in ROLLS:
            for node in NODES:
                await served.restart(node, change)
                await flow.until_whole(within_s=BACK_S_MAX)
    assert ([], []) == (flow.failed(), flow.partial())
    require_right(flow, release)
    assert ([], 0) == (load.failed, reading.missed)
    assert load.answered > 100


async def told(address: str, release: SmallRelease) -> list[object]:
    """What a client makes of the answers to one call of each kind."""
    async with Client(address, deadline_s=5.0) as client:
        found = await client.retrieve(release.queries[0], 10)
        batch = await client.retrieve_batch(release.queries, 10)
        liked = await client.recommend(user_embedding=release.queries[0], item_count=10)
        read = await client.get_items([1, 2, 3], with_embeddings=True)
        nodes = (await client.cluster_status()).nodes
        shards = (await client.cluster_map()).shards
    return [
        *(list(found.ids), found.scores.tolist(), found.certificate.coverage),
        *(list(batch.ids), batch.item_counts.tolist(), list(liked.ids), liked.scores.tolist()),
        *([(item.id, item.embedding is None) for item in read.items], len(nodes), len(shards)),
    ]


@pytest.mark.parametrize("change", [newer, older])
async def test_a_client_reads_answers_of_another_version(
    served: Served, release: SmallRelease, change: Change
) -> None:
    """What it does not know it leaves alone; what it misses has its default."""
    changes = Changes(back=change)
    async with changing_calls(CALLED, served.address, changes) as other:
        assert await told(served.address, release) == await told(other, release)
