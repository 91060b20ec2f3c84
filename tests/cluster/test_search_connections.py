"""A node's search port: what a router may rely on, and what a stranger cannot break."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from rangefinder import Client
from rangefinder.edge.frames import Frames, connect
from rangefinder.internal.v1.node_pb2 import (
    GetNodeStatusRequest,
    SearchBatch,
    SearchRequest,
    SearchResponse,
)
from rangefinder.internal.v1.node_pb2_grpc import NodeServiceStub
from tests.kit.processes import Cluster, running_cluster
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.waiting import until_async

GIVE_UP_S = 20.0
MEGABYTE = 1 << 20


class Router(Frames):
    """A connection as a router has it, with all that the node said on it."""

    def __init__(self) -> None:
        super().__init__(64 * MEGABYTE)
        self.said: asyncio.Queue[SearchResponse] = asyncio.Queue()
        self.is_over = asyncio.Event()

    def message_received(self, content: bytes) -> None:
        self.said.put_nowait(SearchResponse.FromString(content))

    def closed(self, why: str) -> None:
        self.is_over.set()

    def ask(self, request: SearchRequest) -> None:
        self.send(request.SerializeToString())

    async def next(self) -> SearchResponse:
        async with asyncio.timeout(GIVE_UP_S):
            return await self.said.get()

    async def end(self) -> None:
        async with asyncio.timeout(GIVE_UP_S):
            await self.is_over.wait()


@dataclass(frozen=True, slots=True)
class Served:
    """One node with all shards, behind a router."""

    cluster: Cluster
    client: Client
    search_port: int
    batch: SearchBatch  # One query, as a router would ask it.
    shards: list[str]

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Router]:
        """A connection that the node has greeted."""
        router = Router()
        await connect(router, "127.0.0.1", self.search_port)
        try:
            assert (await router.next()).ready
            yield router
        finally:
            router.abort()

    def request(self, search_id: int, batch: SearchBatch | None = None) -> SearchRequest:
        return SearchRequest(search_id=search_id, batch=batch or self.batch, shards=self.shards)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return build_small_release(tmp_path_factory.mktemp("search-port"), shard_count=2)


@pytest.fixture(scope="module")
async def served(
    release: SmallRelease, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    async with serving(release, tmp_path_factory.mktemp("served") / "cluster") as served:
        yield served


@asynccontextmanager
async def serving(release: SmallRelease, data_dir: Path) -> AsyncIterator[Served]:
    async with (
        running_cluster(release.path, data_dir, node_count=1) as cluster,
        Client(cluster.address, deadline_s=5.0) as client,
    ):
        cluster_map = await client.cluster_map()
        async with grpc.aio.insecure_channel(cluster_map.nodes[0].address) as channel:
            status = await NodeServiceStub(channel).GetNodeStatus(GetNodeStatusRequest())
        batch = SearchBatch(
            map_epoch=cluster_map.epoch,
            release=cluster_map.active_release,
            time_left_ms=5_000,
            queries=release.queries[0].astype("<f4").tobytes(),
            query_count=1,
            item_counts=[10],
        )
        shards = [shard.name for shard in cluster_map.shards]
        yield Served(cluster, client, status.search_port, batch, shards)


def changed(batch: SearchBatch, **fields: object) -> SearchBatch:
    other = SearchBatch()
    other.CopyFrom(batch)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


async def test_a_search_is_answered_under_its_id(served: Served) -> None:
    """Small ones and large ones, of which several are in flight, each once."""
    async with served.connection() as router:
        wide = changed(served.batch, search_width=2_000)
        for search_id in range(1, 41):
            router.ask(served.request(search_id, wide if search_id % 2 else served.batch))
        answers = [await router.next() for _ in range(40)]
    assert list(range(1, 41)) == sorted(answer.search_id for answer in answers)
    for answer in answers:
        assert [10] == list(answer.answer.item_counts)
        assert served.shards == [each.shard for each in answer.answer.shards]
    plain = {answer.answer.keys for answer in answers if answer.search_id % 2 == 0}
    assert 1 == len(plain)


async def test_a_ping_is_answered(served: Served) -> None:
    """So that a router can tell a node that is silent from one that has nothing to say."""
    async with served.connection() as router:
        router.ask(SearchRequest(search_id=7, ping=True))
        assert SearchResponse(search_id=7, ready=True) == await router.next()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"map_epoch": 99}, "MAP_CHANGED"),
        ({"release": "another"}, "RELEASE_NOT_SERVED"),
        ({"query_count": 0}, "INVALID_REQUEST"),
        ({"query_count": 1025}, "INVALID_REQUEST"),
        ({"queries": b"1234"}, "INVALID_REQUEST"),
        ({"excluded_keys": b"12345678", "time_left_ms": -1.0}, "DEADLINE_SPENT"),
    ],
    ids=["epoch", "release", "no-query", "too-many", "dimension", "time"],
)
async def test_a_bad_search_gets_its_reason(
    served: Served, fields: dict[str, object], reason: str
) -> None:
    """And the connection goes on."""
    async with served.connection() as router:
        router.ask(served.request(1, changed(served.batch, **fields)))
        answer = await router.next()
        missed = {each.missed_reason for each in answer.answer.shards} - {""}
        assert {reason} == ({answer.failure.reason} - {""} or missed)
        router.ask(served.request(2))
        assert 2 == (await router.next()).search_id


async def test_an_unknown_shard_gets_its_reason(served: Served) -> None:
    """A router with another map is told so."""
    async with served.connection() as router:
        router.ask(SearchRequest(search_id=1, batch=served.batch, shards=["s-99"]))
        assert "UNKNOWN_SHARD" == (await router.next()).failure.reason


@pytest.mark.parametrize("garbage", [b"\xff" * 50, b"\xff\xff\xff\xff", b"PRI * HTTP/2.0\r\n\r\n"])
async def test_garbage_ends_its_connection_and_no_other(served: Served, garbage: bytes) -> None:
    """Be it no message or no frame."""
    async with served.connection() as good, served.connection() as bad:
        assert bad._transport is not None
        is_message = garbage.startswith(b"\xff" * 50)
        size = len(garbage).to_bytes(4, "little") if is_message else b""
        bad._transport.write(size + garbage)
        await bad.end()
        good.ask(served.request(1))
        assert 1 == (await good.next()).search_id


async def test_a_router_that_does_not_read_harms_nobody(served: Served) -> None:
    """The node stops reading from it, keeps little for it, and answers others meanwhile."""
    node = psutil.Process(served.cluster.pid("node-0"))
    large = changed(served.batch, exact=True, query_count=1)
    large.item_counts[:] = [5_000]
    async with served.connection() as deaf, served.connection() as good:
        deaf.pause()
        before = node.memory_info().rss
        for search_id in range(1, 1_001):  # 60 MB of answers.
            deaf.ask(served.request(search_id, large))
        for search_id in range(1, 51):
            good.ask(served.request(search_id))
            assert search_id == (await good.next()).search_id
        await asyncio.to_thread(node.cpu_percent, 0.2)
        assert node.memory_info().rss - before < 25 * MEGABYTE
        deaf.resume()
        answers = [await deaf.next() for _ in range(1_000)]
    assert set(range(1, 1_001)) == {answer.search_id for answer in answers}


async def test_what_is_cancelled_is_not_searched(served: Served) -> None:
    """Of many searches that are dropped at once, the node does those that threads had begun."""
    node = psutil.Process(served.cluster.pid("node-0"))
    large = changed(served.batch, exact=True, query_count=200)
    large.queries, large.item_counts[:] = served.batch.queries * 200, [10] * 200
    spent_s = []
    async with served.connection() as router:
        for search_count, dropped_count in ((20, 0), (20, 20)):
            began_s = node.cpu_times().user
            for search_id in range(1, search_count + 1):
                router.ask(served.request(search_id, large))
            for search_id in range(1, dropped_count + 1):
                router.ask(SearchRequest(search_id=search_id, cancel=True))
            router.ask(served.request(99))
            answered = set[int]()
            while not {99, *range(dropped_count + 1, search_count + 1)} <= answered:
                answered.add((await router.next()).search_id)
            spent_s.append(node.cpu_times().user - began_s)
    assert len(answered) < 10
    assert spent_s[1] < spent_s[0] / 2


async def test_a_draining_node_answers_what_it_was_sent(release: SmallRelease, tmp_path: Path) -> None:
    """It says so, answers all that is on the way, and ends once its routers have gone."""
    async with serving(release, tmp_path / "cluster") as served, served.connection() as router:
        pid = served.cluster.pid("node-0")
        served.cluster.signal("node-0", signal.SIGTERM)
        assert (await router.next()).draining
        for search_id in range(1, 21):
            router.ask(served.request(search_id))
        answers = {(await router.next()).search_id for _ in range(20)}
        assert set(range(1, 21)) == answers
        router.close()

        async def is_gone() -> bool:
            return not psutil.pid_exists(pid) or served.cluster.pid("node-0") != pid

        await until_async(is_gone, within_s=5, what="the node has ended")
        refused = Router()
        with pytest.raises(OSError, match=str(served.search_port)):
            await connect(refused, "127.0.0.1", served.search_port)
