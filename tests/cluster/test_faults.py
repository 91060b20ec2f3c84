"""Processes that die, freeze and leave while requests go on: what callers see and are told."""

import json
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import grpc
import psutil
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from rangefinder import Client, Retrieved
from rangefinder.answers import Item
from rangefinder.edge.wire import certificate_of
from rangefinder.errors import CoverageTooLow, DeadlineSpent, ReplicaUnavailable
from rangefinder.v1.cluster_pb2 import ClusterMap
from rangefinder.v1.recommendation_pb2 import RetrieveRequest
from rangefinder.v1.recommendation_pb2_grpc import RecommendationServiceStub
from rangefinder.v1.types_pb2 import Certificate
from tests.kit.commands import rangefinder_all, require_refused
from tests.kit.damage import copy_release, flip_bit
from tests.kit.flow import DEADLINE_S, LANES, Flow, require_right, steady_flow
from tests.kit.oracle import splitmix64
from tests.kit.processes import Cluster, running_cluster
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.waiting import until, until_all_used, until_async

# The supervisor waits 2 s, the node takes half a second to load; the rest is for a busy machine.
BACK_S_MAX = 15.0


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    """Four shards: with two nodes, s-0 and s-2 are on node-0, s-1 and s-3 on node-1."""
    return build_small_release(tmp_path_factory.mktemp("faults"))


@asynccontextmanager
async def served(
    release: SmallRelease, data_dir: Path, *, node_count: int = 2, replica_count: int = 1
) -> AsyncIterator[tuple[Cluster, Client]]:
    async with (
        running_cluster(
            release.path, data_dir, node_count=node_count, replica_count=replica_count
        ) as cluster,
        Client(cluster.address, deadline_s=5.0) as client,
    ):
        yield cluster, client


def ranges_of(cluster_map: ClusterMap, node: str) -> set[tuple[int, int]]:
    """The key ranges of which a node holds the one replica."""
    return {
        (shard.key_start, shard.key_end or 2**64)
        for shard in cluster_map.shards
        if [replica.node for replica in shard.replicas] == [node]
    }


def items_of(cluster_map: ClusterMap, node: str) -> int:
    held = ranges_of(cluster_map, node)
    return sum(
        shard.item_count
        for shard in cluster_map.shards
        if (shard.key_start, shard.key_end or 2**64) in held
    )


def reasons(flow: Flow) -> set[str]:
    """Why anything was missed."""
    return {
        missed.reason
        for asked in flow.asked
        if isinstance(asked.outcome, Retrieved)
        for missed in asked.outcome.certificate.missed_ranges
    }


async def test_a_killed_node_costs_its_ranges_and_no_request(
    release: SmallRelease, tmp_path: Path
) -> None:
    """Each of three nodes is killed under requests: none fails, every answer names exactly what it
    missed, every hit is right, and about 2 s later the node is back and answers are whole."""
    async with served(release, tmp_path, node_count=3) as (cluster, client):
        cluster_map = await client.cluster_map()
        for victim in ("node-0", "node-1", "node-2"):
            pid = cluster.pid(victim)
            async with steady_flow(client, release) as flow:
                await flow.until_whole(within_s=5)
                cluster.signal(victim, signal.SIGKILL)
                await flow.until_partial(within_s=2)
                back_s = await flow.until_whole(within_s=BACK_S_MAX)

            assert flow.failed() == []
            assert reasons(flow) <= {ReplicaUnavailable.reason, DeadlineSpent.reason}
            assert ReplicaUnavailable.reason in reasons(flow)
            for asked in flow.partial():
                assert asked.missed == ranges_of(cluster_map, victim)
                assert asked.coverage == 1 - items_of(cluster_map, victim) / len(release.keys)
            require_right(flow, release)
            assert cluster.pid(victim) != pid
            assert back_s > 1.5


async def test_a_frozen_node_costs_its_ranges_and_no_time_for_long(
    release: SmallRelease, tmp_path: Path
) -> None:
    """A node is frozen under requests: none fails or takes longer than its deadline; within a second
    the node is left out and answers are quick; thawed, it is taken back as it is."""
    async with served(release, tmp_path) as (cluster, client):
        cluster_map = await client.cluster_map()
        pid = cluster.pid("node-1")
        async with steady_flow(client, release) as flow:
            await flow.until_whole(within_s=5)
            cluster.signal("node-1", signal.SIGSTOP)
            ejected_s = await flow.until_one(
                lambda asked: asked.coverage < 1 and asked.took_s < DEADLINE_S / 4,
                within_s=5,
                what="a quick answer without the frozen node",
            )
            before = len(flow.asked)
            await until(lambda: len(flow.asked) > before + 100, within_s=10, what="100 more answers")
            quick = flow.asked[before:]
            cluster.signal("node-1", signal.SIGCONT)
            await flow.until_whole(within_s=BACK_S_MAX)

        assert flow.failed() == []
        assert max(each.took_s for each in flow.asked) < DEADLINE_S
        assert ejected_s < 1.5
        assert median(each.took_s for each in quick) < DEADLINE_S / 8
        assert {each.coverage for each in quick} == {0.5}
        assert reasons(flow) == {ReplicaUnavailable.reason, DeadlineSpent.reason}
        for asked in flow.partial():
            assert asked.missed == ranges_of(cluster_map, "node-1")
        require_right(flow, release)
        assert cluster.pid("node-1") == pid


@pytest.fixture(scope="module")
async def half(
    release: SmallRelease, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Cluster, Client]]:
    """Only node-0 answers: started again, node-1 finds a file damaged, and so stays away."""
    folder = tmp_path_factory.mktemp("half")
    copy = replace(release, path=copy_release(release.path, folder))
    async with served(copy, folder / "cluster") as (cluster, client):
        # The index is in memory, so that the node serves on until it is killed.
        flip_bit(copy.path / "shards/s-1/segment-0/index.hnsw", 12_345)
        cluster.signal("node-1", signal.SIGKILL)
        await until(
            lambda: "checksum mismatch" in cluster.output("node-1"),
            within_s=BACK_S_MAX,
            what="node-1 refuses its file",
        )
        yield cluster, client


@pytest.mark.parametrize("exact", [True, False])
async def test_minimum_coverage_decides_whether_a_part_is_an_answer(
    half: tuple[Cluster, Client], release: SmallRelease, exact: bool
) -> None:
    """With half of the catalogue, whoever asks for half gets it; whoever asks for more gets
    COVERAGE_TOO_LOW, with the certificate of what could have been searched."""
    _, client = half
    missing = ranges_of(await client.cluster_map(), "node-1")
    query = release.queries[0]

    answer = await client.retrieve(query, 10, exact=exact, minimum_coverage=0.5)
    with pytest.raises(CoverageTooLow) as of_one:
        await client.retrieve(query, 10, exact=exact, minimum_coverage=1.0)
    with pytest.raises(CoverageTooLow) as of_batch:
        await client.retrieve_batch(release.queries[:5], 10, exact=exact, minimum_coverage=0.51)

    assert answer.certificate.coverage == 0.5
    for refused in (of_one.value, of_batch.value):
        assert refused.certificate is not None
        certificate = certificate_of(refused.certificate)
        assert {(each.key_start, each.key_end) for each in certificate.missed_ranges} == missing
        assert {each.reason for each in certificate.missed_ranges} == {ReplicaUnavailable.reason}
        assert (certificate.item_count, certificate.item_count_searched) == (5_000, 2_500)


async def test_a_refusal_for_coverage_is_unavailable_with_details(
    half: tuple[Cluster, Client], release: SmallRelease
) -> None:
    """On the wire, COVERAGE_TOO_LOW is UNAVAILABLE with an ErrorInfo and the Certificate."""
    cluster, _ = half
    request = RetrieveRequest(item_count=10, minimum_coverage=1.0)
    request.query.values.extend(release.queries[0].tolist())
    async with grpc.aio.insecure_channel(cluster.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await RecommendationServiceStub(channel).Retrieve(request, timeout=5)

    trailers = dict(failure.value.trailing_metadata() or ())
    status = Status.FromString(trailers["grpc-status-details-bin"])
    info, certificate = ErrorInfo(), Certificate()
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert [
        detail.Unpack(into) for detail, into in zip(status.details, (info, certificate), strict=True)
    ] == [True, True]
    assert (info.domain, info.reason) == ("rangefinder", "COVERAGE_TOO_LOW")
    assert certificate.item_count_searched == 2_500
    assert len(certificate.missed_ranges) == 2


async def test_items_that_cannot_be_read_are_named(
    half: tuple[Cluster, Client], release: SmallRelease
) -> None:
    """GetItems gives what it can read, in the order asked for, and names the ids that it cannot."""
    _, client = half
    missing = ranges_of(await client.cluster_map(), "node-1")
    ids = [*range(500, 0, -1), 1_000_000]
    away = [each for each in ids if any(a <= splitmix64(each) < b for a, b in missing)]

    read = await client.get_items(ids)

    assert list(read.unread_ids) == away
    assert [item.id for item in read.items] == [
        each for each in ids if each not in away and each < 5_000
    ]
    assert {(each.key_start, each.key_end) for each in read.certificate.missed_ranges} == missing


async def test_a_scan_ends_where_it_cannot_go_on(
    half: tuple[Cluster, Client], release: SmallRelease
) -> None:
    """ScanItems gives every item before the first range that cannot be read, then COVERAGE_TOO_LOW;
    ranges that can be read are read whole."""
    _, client = half
    shards = (await client.cluster_map()).shards
    by_key = sorted(range(5_000), key=lambda row: release.keys[row])
    seen: list[Item] = []

    with pytest.raises(CoverageTooLow):
        async for item in client.scan_items():
            seen.append(item)  # noqa: PERF401 (what came before the refusal is kept)
    third = [
        item.id
        async for item in client.scan_items(key_start=shards[2].key_start, key_end=shards[2].key_end)
    ]

    assert [item.id for item in seen] == by_key[:1_250]
    assert third == by_key[2_500:3_750]


async def test_commands_tell_that_a_node_is_down(
    half: tuple[Cluster, Client], release: SmallRelease
) -> None:
    """`status` shows the lost node and exits with 1; so does `items get` of an item of it; `retrieve`
    says what was missed, and is refused where it asks for everything."""
    cluster, client = half
    missing = ranges_of(await client.cluster_map(), "node-1")
    away = next(row for row, key in enumerate(release.keys) if any(a <= key < b for a, b in missing))
    here = next(
        row for row, key in enumerate(release.keys) if not any(a <= key < b for a, b in missing)
    )
    commands: dict[str, tuple[object, ...]] = {
        "status": ("status",),
        "status as JSON": ("status", "--json"),
        "get": ("items", "get", away, here),
        "retrieve": ("retrieve", "--like", here),
        "like": ("retrieve", "--like", away),
        "whole": ("retrieve", "--like", here, "--minimum-coverage", 1),
    }

    done = await rangefinder_all(
        {name: (*command, "--address", cluster.address) for name, command in commands.items()}
    )

    codes = {name: each.returncode for name, each in done.items()}
    assert codes == {name: int(name != "retrieve") for name in commands}
    assert re.findall(r"(node-\d)[^\n]*? (yes|NO) ", done["status"].stdout)[:2] == [
        ("node-0", "yes"),
        ("node-1", "NO"),
    ]
    status = json.loads(done["status as JSON"].stdout)["status"]
    assert [node.get("healthy", False) for node in status["nodes"]] == [True, False]
    assert f"{away}: its range cannot be read now" in done["get"].stdout
    assert f"│ {here} " in done["get"].stdout
    assert "searched 2,500 of 5,000 items (50.0%)" in done["retrieve"].stdout
    assert done["retrieve"].stdout.count(": REPLICA_UNAVAILABLE") == 2
    require_refused(done["like"], f"--like {away}: its range cannot be read now")
    require_refused(done["whole"], "[COVERAGE_TOO_LOW]")


async def test_a_second_replica_makes_up_for_a_node(release: SmallRelease, tmp_path: Path) -> None:
    """With two replicas, a node that is told to end costs nothing at all, and one that is killed costs
    no more than what was under way on it."""
    async with served(release, tmp_path, replica_count=2) as (cluster, client):
        pid = cluster.pid("node-1")
        async with steady_flow(client, release, pause_s=0) as flow:
            await flow.until_whole(within_s=5)
            cluster.signal("node-1", signal.SIGTERM)
            await until(lambda: not psutil.pid_exists(pid), within_s=5, what="node-1 ends")
        assert "node_draining" in cluster.output("node-1")
        assert flow.partial() == []
        await until_all_used(client, within_s=BACK_S_MAX)

        async with steady_flow(client, release) as flow:
            await flow.until_whole(within_s=5)
            killed_s = time.monotonic()
            cluster.signal("node-0", signal.SIGKILL)
            await until_lost(client, "node-0")
            lost = len(flow.asked)
            await until(lambda: len(flow.asked) > lost + 100, within_s=5, what="100 more answers")

        assert flow.failed() == []
        assert max((each.began_s - killed_s for each in flow.partial()), default=0) < 0.2
        assert len(flow.partial()) <= LANES
        require_right(flow, release)


async def test_without_any_node_an_answer_says_so(release: SmallRelease, tmp_path: Path) -> None:
    """All nodes frozen, then one told to end and one killed: no request fails or hangs, the answer
    covers nothing and says why; whoever asks for more is refused. Later all is well again."""
    async with served(release, tmp_path) as (cluster, client):
        nodes = ("node-0", "node-1")
        async with steady_flow(client, release) as flow:
            await flow.until_whole(within_s=5)
            for name in nodes:
                cluster.signal(name, signal.SIGSTOP)
            await flow.until_one(lambda asked: asked.coverage == 0, within_s=5, what="coverage 0")
            for name in nodes:
                cluster.signal(name, signal.SIGCONT)
            await flow.until_whole(within_s=BACK_S_MAX)

            cluster.signal("node-0", signal.SIGTERM)
            cluster.signal("node-1", signal.SIGKILL)
            await flow.until_one(lambda asked: asked.coverage == 0, within_s=5, what="coverage 0")
            with pytest.raises(CoverageTooLow):
                await client.retrieve(release.queries[0], minimum_coverage=0.01)
            read = await client.get_items([1, 2, 3])
            with pytest.raises(CoverageTooLow):
                await anext(client.scan_items())
            await flow.until_whole(within_s=BACK_S_MAX)

        assert flow.failed() == []
        assert max(each.took_s for each in flow.asked) < DEADLINE_S
        assert (list(read.items), list(read.unread_ids)) == ([], [1, 2, 3])
        assert reasons(flow) <= {ReplicaUnavailable.reason, DeadlineSpent.reason}
        require_right(flow, release)


async def test_a_killed_router_is_started_again(release: SmallRelease, tmp_path: Path) -> None:
    """Without its router the cluster is unavailable, not slow; about 2 s later it answers again."""
    async with served(release, tmp_path) as (cluster, client):
        async with steady_flow(client, release) as flow:
            await flow.until_whole(within_s=5)
            pid = cluster.pid("router-0")
            cluster.signal("router-0", signal.SIGKILL)
            await flow.until_one(
                lambda asked: not isinstance(asked.outcome, Retrieved), within_s=2, what="a refusal"
            )
            await flow.until_whole(within_s=BACK_S_MAX)

        refused = [each for each in flow.asked if isinstance(each.outcome, ReplicaUnavailable)]
        assert median(each.took_s for each in refused) < DEADLINE_S / 4
        # A caller that gets no processor for 0.2 s meets its own deadline before it sees the refusal.
        spent = [each for each in flow.failed() if isinstance(each, DeadlineSpent)]
        assert len(spent) <= LANES
        assert len(refused) + len(spent) == len(flow.failed())
        assert cluster.pid("router-0") != pid


async def until_lost(client: Client, name: str) -> None:
    """Wait until the router knows that a node is gone."""

    async def is_lost() -> bool:
        nodes = (await client.cluster_status()).nodes
        return not next(each.healthy for each in nodes if each.node == name)

    await until_async(is_lost, within_s=5, what=f"{name} is gone")
