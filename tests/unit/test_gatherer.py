"""The gatherer: what travels together, who is answered with what, and that nothing is kept."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from rangefinder.errors import DeadlineSpent, Internal, NotReady, Overloaded
from router import gatherer as gatherer_module
from router import window as window_module
from router.batch import BATCH_ITEMS_MAX, Group
from router.company import Company
from tests.unit.fake_nodes import (
    DEFAULT,
    ITEMS_IN_SHARD,
    SHARDS_OF_NODE,
    FakeCluster,
    FakeNode,
    Sent,
    found,
    reasons,
    whole,
)

NO_REASON = dict.fromkeys(("s-0", "s-1", "s-2", "s-3"), "")
OTHERS = [Group("r-1", 20, False), Group("r-1", 0, True), Group("r-2", 0, False)]


@pytest.fixture(autouse=True)
def never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, no batch counts as late unless a test wants it, and one is out."""
    monkeypatch.setattr(window_module, "PERIOD_S", 60.0)
    monkeypatch.setattr(gatherer_module, "_LATE_S_MIN", 60.0)
    monkeypatch.setattr(gatherer_module, "_LATE_S_MAX", 60.0)


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """A cluster that keeps nothing once its test is over."""
    cluster = FakeCluster()
    yield cluster
    assert cluster.is_idle


async def started() -> None:
    """Let every task that can go on do so once."""
    await asyncio.sleep(0)


async def test_an_idle_gatherer_sends_at_once(cluster: FakeCluster) -> None:
    """A block that finds no batch out is sent to all nodes before anything else happens."""
    asked = cluster.ask(5)
    await started()
    sent = cluster.a.sent.get_nowait(), cluster.b.sent.get_nowait()
    assert [(6, ("s-0", "s-1"), [5]), (6, ("s-2", "s-3"), [5])] == [
        (each.batch.map_epoch, each.shards, each.queries) for each in sent
    ]
    cluster.a.answer(sent[0])
    assert not asked.done()
    cluster.b.answer(sent[1])
    outcome = await asked
    assert (whole(5), NO_REASON) == (found(outcome), reasons(outcome))


async def test_blocks_that_come_while_a_batch_is_out_travel_together(cluster: FakeCluster) -> None:
    """They wait for the batch and go as one; each gets its own rows, cut to what it wants."""
    asked = [cluster.ask(1)]
    first = await cluster.a.next_sent()
    asked += [cluster.ask(2, 3), cluster.ask(4, item_count=2), cluster.ask(5, 6, 7)]
    await started()
    assert (True, 6) == (cluster.a.sent.empty(), cluster.gatherer.waiting_rows)
    cluster.a.answer(first)
    assert cluster.a.sent.empty()  # Node b has not answered yet.
    cluster.b.answer(await cluster.b.next_sent())
    sent, _ = await cluster.answer_next()
    assert [2, 3, 4, 5, 6, 7] == sent.queries
    answers = [found(await each) for each in asked]
    assert [whole(1), whole(2, 3), [[400, 401]], whole(5, 6, 7)] == answers


@pytest.mark.parametrize("other", OTHERS)
async def test_groups_never_share_a_batch(cluster: FakeCluster, other: Group) -> None:
    """Blocks of another width, exactness or release go in a batch of their own, in order of arrival."""
    asked = [cluster.ask(1)]
    await started()
    asked += [cluster.ask(2, group=other), cluster.ask(3), cluster.ask(4, group=other), cluster.ask(5)]
    batches = [(await cluster.answer_next())[0] for _ in range(3)]
    assert [[1], [2, 4], [3, 5]] == [batch.queries for batch in batches]
    assert [DEFAULT, other, DEFAULT] == [batch.group for batch in batches]
    assert [whole(query) for query in (1, 2, 3, 4, 5)] == [found(await each) for each in asked]


async def test_batches_are_bounded_by_rows() -> None:
    """A batch takes blocks as they come while they fit; the rest goes next, and no block starves."""
    cluster = FakeCluster(batch_rows_max=4)
    asked = [cluster.ask(1)]
    await started()
    asked += [
        cluster.ask(*range(start, start + size)) for start, size in ((10, 2), (20, 3), (30, 2), (40, 9))
    ]
    batches = [(await cluster.answer_next())[0].queries for _ in range(4)]
    assert [[1], [10, 11, 30, 31], [20, 21, 22], list(range(40, 49))] == batches
    assert [1, 2, 3, 2, 9] == [len(found(await each)) for each in asked]
    assert cluster.is_idle


async def test_a_full_batch_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else may come would not fit."""
    monkeypatch.setattr(Company, "is_expected", lambda *_: True)
    cluster = FakeCluster(batch_rows_max=4)
    asked = [cluster.ask(each) for each in range(3)]
    await started()
    assert cluster.a.sent.empty()
    asked.append(cluster.ask(3))
    await started()
    sent, _ = await cluster.answer_next()
    assert [0, 1, 2, 3] == sent.queries
    assert [1] * 4 == [len(found(await each)) for each in asked]
    assert cluster.is_idle


async def test_a_bug_costs_its_batch_alone(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its callers are told, not left to wait for ever; the next ones are answered."""
    with monkeypatch.context() as broken:
        broken.setattr(gatherer_module, "batch_content", lambda *_: 1 / 0)
        with pytest.raises(Internal):
            await cluster.ask(1)
    asked = cluster.ask(2)
    await cluster.answer_next()
    assert whole(2) == found(await asked)


async def test_batches_are_bounded_by_items(cluster: FakeCluster) -> None:
    """What the blocks of a batch want in all is bounded, too."""
    half = BATCH_ITEMS_MAX // 2
    asked = [cluster.ask(1)]
    await started()
    asked += [cluster.ask(2, item_count=half), cluster.ask(3, item_count=half), cluster.ask(4)]
    batches = [(await cluster.answer_next())[0].queries for _ in range(3)]
    assert [[1], [2, 3], [4]] == batches
    await asyncio.gather(*asked)


async def test_a_node_that_fails_costs_its_shards(cluster: FakeCluster) -> None:
    """A failure is an answer: nobody waits, and its reason stands with each of the node's shards."""
    asked = cluster.ask(3)
    cluster.a.fail(await cluster.a.next_sent(), NotReady("loading"))
    cluster.b.answer(await cluster.b.next_sent())
    outcome = await asked
    assert [[302, 303]] == found(outcome)
    assert NO_REASON | dict.fromkeys(SHARDS_OF_NODE["a"], "NOT_READY") == reasons(outcome)


async def test_a_shard_that_its_node_missed_is_missed(cluster: FakeCluster) -> None:
    """A node may answer for one of its shards and say why not for the other."""
    asked = cluster.ask(3)
    cluster.a.answer(await cluster.a.next_sent(), {"s-1": "DEADLINE_SPENT"})
    cluster.b.answer(await cluster.b.next_sent())
    outcome = await asked
    assert [[300, 302, 303]] == found(outcome)
    assert NO_REASON | {"s-1": "DEADLINE_SPENT"} == reasons(outcome)
    assert {"s-0": ITEMS_IN_SHARD, "s-2": ITEMS_IN_SHARD, "s-3": ITEMS_IN_SHARD} == (
        cluster.gatherer.last_counts
    )


async def test_without_a_usable_node_the_answer_comes_at_once(cluster: FakeCluster) -> None:
    """Nobody is asked, every shard is REPLICA_UNAVAILABLE, and the next search is no different."""
    cluster.a.is_open = cluster.b.is_open = False
    for query in (1, 2):
        outcome = await cluster.ask(query)
        assert [[]] == found(outcome)
        assert dict.fromkeys(NO_REASON, "REPLICA_UNAVAILABLE") == reasons(outcome)
    assert (True, True) == (cluster.a.sent.empty(), cluster.b.sent.empty())


async def test_an_unusable_node_is_not_waited_for(cluster: FakeCluster) -> None:
    """What only it holds is REPLICA_UNAVAILABLE; the others answer."""
    cluster.b.is_open = False
    asked = cluster.ask(4)
    cluster.a.answer(await cluster.a.next_sent())
    outcome = await asked
    assert [[400, 401]] == found(outcome)
    missed = dict.fromkeys(SHARDS_OF_NODE["b"], "REPLICA_UNAVAILABLE")
    assert NO_REASON | missed == reasons(outcome)
    assert cluster.b.sent.empty()


async def test_more_than_may_wait_is_refused(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When as many queries wait as may, the next one is OVERLOADED at once; the others are served."""
    monkeypatch.setattr(gatherer_module, "_WAITING_ROWS_MAX", 3)
    asked = [cluster.ask(1)]
    await started()
    asked += [cluster.ask(2, 3)]
    await started()
    with pytest.raises(Overloaded):
        await cluster.ask(4, 5)
    asked += [cluster.ask(6)]
    await cluster.answer_next()
    await cluster.answer_next()
    assert [whole(1), whole(2, 3), whole(6)] == [found(await each) for each in asked]


async def test_a_caller_that_is_gone_is_left_out(cluster: FakeCluster) -> None:
    """A block whose caller went away while it waited is not sent; those beside it are."""
    asked = [cluster.ask(1)]
    await started()
    asked += [cluster.ask(2), cluster.ask(3)]
    await started()
    asked[1].cancel()
    await cluster.answer_next()
    sent, _ = await cluster.answer_next()
    assert [3] == sent.queries
    assert [whole(1), whole(3)] == [found(await asked[0]), found(await asked[2])]


async def test_a_caller_that_goes_while_its_batch_is_out(cluster: FakeCluster) -> None:
    """The others of its batch get their own rows."""
    asked = [cluster.ask(1)]
    await started()
    asked += [cluster.ask(2), cluster.ask(3)]
    await cluster.answer_next()
    sent = await cluster.a.next_sent(), await cluster.b.next_sent()
    asked[1].cancel()
    await started()
    cluster.a.answer(sent[0])
    cluster.b.answer(sent[1])
    assert whole(3) == found(await asked[2])
    assert asked[1].cancelled()


async def test_a_spent_deadline_is_refused(cluster: FakeCluster) -> None:
    """A deadline that has passed starts no work."""
    with pytest.raises(DeadlineSpent):
        await cluster.ask(1, allowed_s=0.0)
    assert cluster.a.sent.empty()


async def test_texts_of_all_nodes_are_known(cluster: FakeCluster) -> None:
    """The texts that the nodes give with their hits come with the outcome."""
    asked = cluster.ask(5)
    await cluster.answer_next()
    outcome = await asked
    assert [b"500", b"501", b"502", b"503"] == [outcome.texts[key] for key in found(outcome)[0]]


async def _serve(node: FakeNode, order: random.Random) -> None:
    """Answer or fail what comes, in any order, for ever."""
    held: list[Sent] = []
    while True:
        held.append(await node.sent.get())
        await asyncio.sleep(0)
        while held and (order.random() < 0.7 or node.sent.empty()):
            sent = held.pop(order.randrange(len(held)))
            if order.random() < 0.1:
                node.fail(sent, NotReady("by chance"))
            else:
                node.answer(sent)


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_every_caller_gets_its_own_rows(seed: int) -> None:
    """300 blocks of any group and size, answered in any order, some failed: each has its own rows."""
    order = random.Random(seed)
    cluster = FakeCluster(batch_rows_max=8)
    servers = [
        asyncio.create_task(_serve(node, order), name=node.name) for node in (cluster.a, cluster.b)
    ]
    asked = []
    for number in range(300):
        queries = [10 * number + row for row in range(order.randint(1, 4))]
        asked.append((queries, cluster.ask(*queries, group=order.choice([DEFAULT, *OTHERS]))))
        while order.random() < 0.5:
            await asyncio.sleep(0)
    for queries, task in asked:
        outcome = await task
        searched = [int(name[2:]) for name, reason in reasons(outcome).items() if not reason]
        assert [[100 * query + shard for shard in searched] for query in queries] == found(outcome)
        assert set(reasons(outcome).values()) <= {"", "NOT_READY"}
    for server in servers:
        server.cancel()
    await asyncio.wait(servers)
    assert cluster.is_idle


async def test_two_batches_are_out_where_nodes_idle(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries that waited for a batch while no node had a queue: the next time they need not wait."""
    monkeypatch.setattr(window_module, "PERIOD_S", 0.0)
    monkeypatch.setattr(window_module, "BUSY_SHARE_MAX", 2.0)
    asked = [cluster.ask(1)]
    await started()
    asked += [cluster.ask(2)]
    await cluster.answer_next()
    await started()
    asked += [cluster.ask(3)]
    sent = [await cluster.a.next_sent(), await cluster.a.next_sent()]
    assert [[2], [3]] == [each.queries for each in sent]
    for each in sent:
        cluster.a.answer(each)
        cluster.b.answer(await cluster.b.next_sent())
    assert [whole(query) for query in (1, 2, 3)] == [found(await each) for each in asked]


@pytest.mark.parametrize(("rows", "shards"), [(3, ("s-2", "s-3")), (1, ("s-2",)), (1, ("s-0", "s-9"))])
async def test_an_answer_to_something_else_is_none(
    cluster: FakeCluster, rows: int, shards: tuple[str, ...]
) -> None:
    """Of other queries or other shards: it costs its ranges, INTERNAL, and holds up nobody."""
    asked = cluster.ask(5)
    cluster.a.answer(await cluster.a.next_sent())
    cluster.b.answer_wrongly(await cluster.b.next_sent(), rows=rows, shards=shards)
    outcome = await asked
    assert [[500, 501]] == found(outcome)
    assert NO_REASON | dict.fromkeys(("s-2", "s-3"), "INTERNAL") == reasons(outcome)
    later = cluster.ask(6)
    await cluster.answer_next()
    assert whole(6) == found(await later)
