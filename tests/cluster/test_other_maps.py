"""T24, as far as maps go today: each process reads its map at its start, so a change of the map makes
some go by another one than others. Meanwhile nothing wrong is served, and what can be had is.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import pytest

from rangefinder import Client, RangefinderError
from rangefinder.cluster_map import ClusterMap, Replica
from rangefinder.errors import CoverageTooLow
from rangefinder.internal.v1.node_pb2 import ReadItemsRequest, SearchBatch, SearchRequest
from rangefinder.map_file import read_map, write_map
from router.config import RouterConfig
from tests.kit.changing_links import Change, Changes, changing_links, nothing
from tests.kit.flow import require_right, steady_flow
from tests.kit.own_nodes import OwnNodes, own_nodes
from tests.kit.processes import free_port
from tests.kit.recommending import running_router
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.steady_load import ItemReading, steady_load
from tests.kit.waiting import until_all_used, until_async

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 as it is")

NODES = ("node-0", "node-1")
WITHIN_S = 15.0
FAULT_S = 0.3 * float(os.environ.get("RANGEFINDER_FAULT_S", "1.0"))
ITEMS = range(0, 5_000, 250)


@dataclass(frozen=True, slots=True)
class Served:
    """Two nodes with both shards each, and a router."""

    nodes: OwnNodes
    address: str
    changes: dict[str, Changes]
    client: Client

    def own_map(self, name: str, change: Callable[[ClusterMap], ClusterMap]) -> Path:
        """Another map than the router's, in a file."""
        path = self.nodes.folder / name
        write_map(path, change(read_map(self.nodes.map_file)))
        return path

    async def restart(self, node: str, map_file: Path) -> None:
        """Have a node go by a map."""
        await self.nodes.stop(node)
        self.nodes.give_map(node, map_file)
        await self.nodes.start(node)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return build_small_release(tmp_path_factory.mktemp("maps"), shard_count=2)


@pytest.fixture
async def served(release: SmallRelease, tmp_path: Path) -> AsyncIterator[Served]:
    async with (
        own_nodes(release.path, tmp_path, node_count=2, replica_count=2) as nodes,
        changing_links(nodes, tmp_path) as (address, changes),
        Client(address, deadline_s=5.0) as client,
    ):
        await until_all_used(client, within_s=WITHIN_S)
        yield Served(nodes, address, changes, client)


def of_another_epoch(message: object) -> None:
    for asked in asked_in(message):
        asked.map_epoch += 1


def of_another_release(message: object) -> None:
    for asked in asked_in(message):
        asked.release = "another"


def of_other_shards(message: object) -> None:
    if isinstance(message, SearchRequest):
        message.shards[:] = [f"other-{name}" for name in message.shards]


def asked_in(message: object) -> list[SearchBatch | ReadItemsRequest]:
    """What says in a message by which map it asks."""
    if isinstance(message, SearchRequest):
        return [message.batch] if message.HasField("batch") else []
    return [message] if isinstance(message, ReadItemsRequest) else []


MISPLACED: tuple[Change, ...] = (
    *(of_another_epoch, of_another_release, of_other_shards, of_another_epoch, of_another_release),
)


async def test_a_node_that_goes_by_another_map_is_not_noticed(
    served: Served, release: SmallRelease
) -> None:
    """Five times a node refuses what it is asked, as it has another map: others are asked instead, so
    that nothing fails, is partial or wrong, and every item is read."""
    reading = ItemReading(ITEMS)
    async with (
        steady_flow(served.client, release) as flow,
        steady_load(served.address, reading) as load,
    ):
        for node, change in zip(cycle(NODES), MISPLACED, strict=False):
            served.changes[node].there = change
            await asyncio.sleep(FAULT_S)
            served.changes[node].there = nothing
            await until_all_used(served.client, within_s=WITHIN_S)
    assert ([], []) == (flow.failed(), flow.partial())
    require_right(flow, release)
    assert ([], 0) == (load.failed, reading.missed)


async def test_a_node_that_holds_less_than_the_map_says_is_not_noticed(
    served: Served, release: SmallRelease
) -> None:
    """A map of the same epoch, with fewer replicas: what a node does not hold is asked of the other."""

    def without_first(cluster_map: ClusterMap) -> ClusterMap:
        first, second = cluster_map.shards
        return replace(cluster_map, shards=(replace(first, replicas=(Replica(node="node-1"),)), second))

    reading = ItemReading(ITEMS)
    await served.nodes.stop("node-0")
    served.nodes.give_map("node-0", served.own_map("fewer.json", without_first))
    async with (
        steady_flow(served.client, release) as flow,
        steady_load(served.address, reading) as load,
    ):
        await served.nodes.start("node-0")
        await asyncio.sleep(2.0)
    assert ([], []) == (flow.failed(), flow.partial())
    require_right(flow, release)
    assert ([], 0) == (load.failed, reading.missed)


async def test_an_answer_is_of_one_map(served: Served, release: SmallRelease, tmp_path: Path) -> None:
    """One node after another goes over to the next map, by which each holds a half. The router answers
    from those that go by its own map, then from nothing, and says so; one of the new map from all."""

    def next_map(cluster_map: ClusterMap) -> ClusterMap:
        shards = [
            replace(shard, replicas=(Replica(node=node),))
            for node, shard in zip(NODES, cluster_map.shards, strict=True)
        ]
        return replace(cluster_map, epoch=2, shards=tuple(shards))

    path = served.own_map("next.json", next_map)
    async with steady_flow(served.client, release) as flow:
        await served.restart("node-0", path)
        await flow.until_whole(within_s=WITHIN_S)
        assert [] == flow.partial()
        await served.restart("node-1", path)
        await flow.until_one(lambda asked: asked.coverage == 0, within_s=WITHIN_S, what="coverage 0")
        await asyncio.sleep(0.5)
        config = RouterConfig(name="new", listen=f"127.0.0.1:{free_port()}", map_file=path)
        async with running_router(config, tmp_path), Client(config.listen, deadline_s=5.0) as client:
            await require_refused(served.client, release)
            await require_whole(client, release)
    assert [] == flow.failed()
    assert {0.0} == {asked.coverage for asked in flow.partial()}
    require_right(flow, release)


async def require_refused(client: Client, release: SmallRelease) -> None:
    """Nothing comes of nodes that have another map, and the answer says why."""

    async def is_told() -> bool:
        # A node that is being connected to, or was slow to refuse, is unavailable until it is asked.
        certificate = (await client.retrieve(release.queries[0], 10)).certificate
        assert (1, 0) == (certificate.map_epoch, certificate.item_count_searched)
        return {"MAP_CHANGED"} == {each.reason for each in certificate.missed_ranges}

    await until_async(is_told, within_s=WITHIN_S, what="the answer says that the map has changed")
    assert [1, 2, 3] == list((await client.get_items([1, 2, 3])).unread_ids)
    with pytest.raises(CoverageTooLow):
        await anext(client.scan_items())


async def require_whole(client: Client, release: SmallRelease) -> None:
    async def is_whole() -> bool:
        with contextlib.suppress(RangefinderError):
            certificate = (await client.retrieve(release.queries[0], 10)).certificate
            return (2, 1.0) == (certificate.map_epoch, certificate.coverage)
        return False

    await until_async(is_whole, within_s=WITHIN_S, what="the new map is served whole")
