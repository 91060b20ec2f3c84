"""The gatherer and the clock: partial answers by the deadline, late batches, silent nodes."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from rangefinder.errors import DeadlineSpent
from router import dispatch as dispatch_module
from router import gatherer as gatherer_module
from router import window as window_module
from router.health import FAILURE_COUNT_MAX
from tests.unit.fake_nodes import SHARDS_OF_NODE, FakeCluster, Sent, found, reasons, whole

SHORT_S = 0.1  # More than a busy machine may take to begin a search.

SEARCHED = dict.fromkeys(("s-0", "s-1", "s-2", "s-3"), "")
B_SPENT = SEARCHED | dict.fromkeys(SHARDS_OF_NODE["b"], "DEADLINE_SPENT")


def set_times(patch: pytest.MonkeyPatch, *, late_s: float = 60.0, silence_s: float = 60.0) -> None:
    """After how long a batch counts as late, and a node as silent."""
    patch.setattr(gatherer_module, "_LATE_S_MIN", late_s)
    patch.setattr(gatherer_module, "_LATE_S_MAX", late_s)
    patch.setattr(dispatch_module, "SILENCE_S", silence_s)


@pytest.fixture(autouse=True)
def nothing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch is late and no node silent, unless a test says so; one batch is out at once."""
    monkeypatch.setattr(window_module, "PERIOD_S", 60.0)
    set_times(monkeypatch)


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """A cluster that keeps nothing once its test is over."""
    cluster = FakeCluster()
    yield cluster
    assert cluster.is_idle


async def only_a_answers(cluster: FakeCluster) -> Sent:
    """Node a answers the next search; returns what b got and keeps to itself."""
    cluster.a.answer(await cluster.a.next_sent())
    return await cluster.b.next_sent()


async def test_by_the_deadline_there_is_what_there_is(cluster: FakeCluster) -> None:
    """A node that has not answered costs its shards, DEADLINE_SPENT, and is told to stop."""
    asked = cluster.ask(5, allowed_s=SHORT_S)
    kept = await only_a_answers(cluster)
    outcome = await asked
    assert ([[500, 501]], B_SPENT) == (found(outcome), reasons(outcome))
    assert [kept.search_id] == cluster.b.cancelled
    assert [] == cluster.a.cancelled


async def test_an_answer_that_comes_too_late_is_nothing(cluster: FakeCluster) -> None:
    """What comes after everybody was answered changes nothing and breaks nothing."""
    asked = cluster.ask(5, allowed_s=SHORT_S)
    kept = await only_a_answers(cluster)
    await asked
    cluster.b.waiting[kept.search_id] = kept  # As if it had been on its way already.
    cluster.b.answer(kept)
    asked = cluster.ask(6)
    await cluster.answer_next()
    assert whole(6) == found(await asked)


async def test_blocks_of_a_batch_keep_their_own_deadlines(cluster: FakeCluster) -> None:
    """One is answered when its time is up, those beside it when all is there."""
    asked = [cluster.ask(1)]
    await asyncio.sleep(0)
    asked += [cluster.ask(2, allowed_s=SHORT_S), cluster.ask(3), cluster.ask(4, allowed_s=2 * SHORT_S)]
    await cluster.answer_next()
    kept = await only_a_answers(cluster)
    early = [await asked[1], await asked[3]]
    assert [[[200, 201]], [[400, 401]]] == [found(each) for each in early]
    assert [B_SPENT, B_SPENT] == [reasons(each) for each in early]
    assert (False, []) == (asked[2].done(), cluster.b.cancelled)
    cluster.b.answer(kept)
    assert whole(3) == found(await asked[2])
    await asked[0]


async def test_a_batch_whose_callers_are_gone_is_dropped(cluster: FakeCluster) -> None:
    """Nobody waits for it: the nodes are told at once, the next batch is sent, nothing is kept."""
    asked, following = cluster.ask(1), cluster.ask(2)
    sent = await cluster.a.next_sent()
    asked.cancel()
    assert [2] == (await cluster.a.next_sent()).queries
    assert ([sent.search_id], [sent.search_id]) == (cluster.a.cancelled, cluster.b.cancelled)
    for node in (cluster.a, cluster.b):
        (waiting,) = node.waiting.values()
        node.answer(waiting)
    assert whole(2) == found(await following)


async def test_a_batch_is_searched_for_the_last_of_its_callers(cluster: FakeCluster) -> None:
    """It is dropped with the last that leaves, and when others had their answer by their deadline."""
    asked = [cluster.ask(1)]
    await asyncio.sleep(0)
    asked += [cluster.ask(2, allowed_s=SHORT_S), cluster.ask(3), cluster.ask(4)]
    await cluster.answer_next()
    sent = await cluster.a.next_sent(), await cluster.b.next_sent()
    asked[2].cancel()
    await asked[1]
    assert ([], []) == (cluster.a.cancelled, cluster.b.cancelled)
    asked[3].cancel()
    await asyncio.wait(asked[2:])
    assert [[each.search_id] for each in sent] == [cluster.a.cancelled, cluster.b.cancelled]


async def test_a_late_batch_does_not_hold_up_the_next(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while a batch that is still out no longer keeps others waiting; it may still come."""
    set_times(monkeypatch, late_s=0.01)
    asked = [cluster.ask(1)]
    kept = await only_a_answers(cluster)
    asked += [cluster.ask(2)]
    await cluster.answer_next()  # Sent while the first is out.
    assert whole(2) == found(await asked[1])
    assert not asked[0].done()
    cluster.b.answer(kept)
    assert whole(1) == found(await asked[0])


async def test_who_waits_too_long_is_told(cluster: FakeCluster) -> None:
    """A block whose time is up before it could be sent gets DEADLINE_SPENT when its turn comes."""
    times_s = [0.0]
    first = cluster.ask(1)
    await asyncio.sleep(0)
    second = cluster.ask(2, allowed_s=1.0, clock=lambda: times_s[0])
    third = cluster.ask(3)
    await asyncio.sleep(0)
    times_s[0] = 1.0
    await cluster.answer_next()
    with pytest.raises(DeadlineSpent):
        await second
    sent, _ = await cluster.answer_next()
    assert [3] == sent.queries
    assert [whole(1), whole(3)] == [found(await first), found(await third)]


async def test_who_waits_is_told_when_the_time_is_up(cluster: FakeCluster) -> None:
    """A block that waits behind a batch hears DEADLINE_SPENT at its deadline, not at its turn."""
    first = cluster.ask(1)
    await asyncio.sleep(0)
    with pytest.raises(DeadlineSpent):
        await cluster.ask(2, allowed_s=SHORT_S)
    assert not first.done()
    await cluster.answer_next()
    assert whole(1) == found(await first)


async def test_a_node_silent_over_many_short_deadlines_is_ejected(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence is counted from the first search since the node was heard, not from each one's start."""
    set_times(monkeypatch, silence_s=SHORT_S * 1.5)
    failures = []
    for query in range(FAILURE_COUNT_MAX + 1):
        asked = cluster.ask(query, allowed_s=SHORT_S)
        await only_a_answers(cluster)
        await asked
        failures.append(cluster.b.health.failure_count)
    assert [0, 1, 2, 3] == failures
    assert not cluster.b.is_usable


async def test_a_silent_node_is_ejected_after_three_searches(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that lets three searches pass without a word is asked no more."""
    set_times(monkeypatch, silence_s=SHORT_S / 2)
    usable = []
    for query in range(FAILURE_COUNT_MAX):
        asked = cluster.ask(query, allowed_s=SHORT_S)
        await only_a_answers(cluster)
        assert B_SPENT == reasons(await asked)
        usable.append(cluster.b.is_usable)
    assert [True, True, False] == usable
    asked = cluster.ask(9)
    cluster.a.answer(await cluster.a.next_sent())
    assert {"", "REPLICA_UNAVAILABLE"} == set(reasons(await asked).values())
    assert cluster.b.sent.empty()
    assert 0 == cluster.a.health.failure_count


async def test_one_search_is_one_failure(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blocks of a batch run out of time, a silent node has failed once."""
    set_times(monkeypatch, silence_s=SHORT_S / 2)
    asked = [cluster.ask(1)]
    await asyncio.sleep(0)
    asked += [cluster.ask(query, allowed_s=SHORT_S + 0.01 * query) for query in range(2, 7)]
    await cluster.answer_next()
    await only_a_answers(cluster)
    for each in asked[1:]:
        assert B_SPENT == reasons(await each)
    assert 1 == cluster.b.health.failure_count
    await asked[0]


async def test_short_deadlines_are_no_failures(cluster: FakeCluster) -> None:
    """Callers that do not wait long say nothing about the node."""
    for query in range(5):
        asked = cluster.ask(query, allowed_s=SHORT_S)
        await only_a_answers(cluster)
        await asked
    assert (0, True) == (cluster.b.health.failure_count, cluster.b.is_usable)


async def test_a_node_that_says_anything_is_not_silent(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that was heard from since, in answer to something else, has not failed."""
    set_times(monkeypatch, silence_s=SHORT_S)
    asked = cluster.ask(1, allowed_s=SHORT_S + 0.01)
    await only_a_answers(cluster)
    loop = asyncio.get_running_loop()
    loop.call_later(SHORT_S, lambda: setattr(cluster.b, "last_heard_s", time.monotonic()))
    await asked
    assert 0 == cluster.b.health.failure_count
