"""Where every shard is on both nodes: who is asked too, or instead, and what the caller gets."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from rangefinder.errors import (
    Internal,
    InvalidRequest,
    MapChanged,
    RangefinderError,
    ReplicaUnavailable,
)
from router import gatherer as gatherer_module
from router import window as window_module
from tests.unit.fake_nodes import FakeCluster, FakeNode, Sent, found, reasons, whole

SHORT_S = 0.3  # A hedge goes out after a third of it, more than a busy machine takes to begin.
NO_REASON = dict.fromkeys(("s-0", "s-1", "s-2", "s-3"), "")
UNAVAILABLE = ReplicaUnavailable("gone")


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeCluster]:
    """One batch is out at once, and keeps nothing once its test is over but what is still awaited."""
    monkeypatch.setattr(window_module, "PERIOD_S", 60.0)
    monkeypatch.setattr(gatherer_module, "_LATE_S_MIN", 60.0)
    monkeypatch.setattr(gatherer_module, "_LATE_S_MAX", 60.0)
    cluster = FakeCluster(is_replicated=True)
    yield cluster
    assert cluster.is_idle


async def both_asked(cluster: FakeCluster) -> tuple[Sent, Sent]:
    """What each node got of a batch that was spread over them."""
    sent = await cluster.a.next_sent(), await cluster.b.next_sent()
    assert sorted(NO_REASON) == sorted((*sent[0].shards, *sent[1].shards))
    return sent


def attempts_of(cluster: FakeCluster) -> tuple[int, int]:
    """Queries of retries, and of hedges."""
    budget = cluster.gatherer.dispatch.budget
    return budget.retry_count, budget.hedge_count


async def test_a_late_node_is_asked_for_elsewhere_too(cluster: FakeCluster) -> None:
    """What it owes, and no more; the answer is whole long before its own, which changes nothing."""
    cluster.gatherer.dispatch.budget.record_queries(time.monotonic(), 1_000)
    asked = cluster.ask(5, allowed_s=SHORT_S)
    first, kept = await both_asked(cluster)
    cluster.a.answer(first)
    hedge = await cluster.a.next_sent()
    assert (sorted(kept.shards), [5]) == (sorted(hedge.shards), hedge.queries)
    cluster.a.answer(hedge)
    outcome = await asked
    assert (whole(5), NO_REASON) == (found(outcome), reasons(outcome))
    assert (0, 1) == attempts_of(cluster)
    cluster.b.answer(kept)


async def test_it_says_how_long_it_waits_for_a_node(cluster: FakeCluster) -> None:
    """Of nodes that nothing is known of yet, a third of the time."""
    asked = cluster.ask(5, allowed_s=SHORT_S)
    sent = await both_asked(cluster)
    assert SHORT_S / 4 < cluster.gatherer.dispatch.hedge_delay_s <= SHORT_S / 3
    for node, each in zip((cluster.a, cluster.b), sent, strict=True):
        node.answer(each)
    await asked


async def test_the_one_that_was_asked_first_may_still_win(cluster: FakeCluster) -> None:
    """A range counts once, whoever answers; the other need not bother any more."""
    asked = cluster.ask(5, allowed_s=SHORT_S)
    first, kept = await both_asked(cluster)
    cluster.a.answer(first)
    hedge = await cluster.a.next_sent()
    cluster.b.answer(kept)
    outcome = await asked
    assert (whole(5), NO_REASON) == (found(outcome), reasons(outcome))
    if hedge.search_id in cluster.a.waiting:  # Nothing was heard of it since: it is awaited.
        cluster.a.answer(hedge)


async def test_a_silent_node_is_replaced_by_half_time(cluster: FakeCluster) -> None:
    """Also where the budget has no hedge to give: it is taken for failed."""
    asked = cluster.ask(5, allowed_s=SHORT_S)
    first, kept = await both_asked(cluster)
    cluster.a.answer(first)
    cluster.a.answer(await cluster.a.next_sent())
    assert whole(5) == found(await asked)
    assert (1, 0) == attempts_of(cluster)
    cluster.b.answer(kept)


async def test_without_a_budget_there_is_no_hedge(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the deadline brings what there is."""
    monkeypatch.setattr("router.budget.HEDGE_SHARE", 0.0)
    monkeypatch.setattr("router.budget.EXTRA_SHARE", 0.0)
    monkeypatch.setattr(cluster.gatherer.dispatch.budget, "_extra", -1.0)
    asked = cluster.ask(5, allowed_s=SHORT_S)
    first, kept = await both_asked(cluster)
    cluster.a.answer(first)
    outcome = await asked
    assert {"DEADLINE_SPENT"} == {reasons(outcome)[name] for name in kept.shards}
    assert {""} == {reasons(outcome)[name] for name in first.shards}
    assert ([kept.search_id], True) == (cluster.b.cancelled, cluster.a.sent.empty())


@pytest.mark.parametrize("error", [UNAVAILABLE, MapChanged("z")])
async def test_a_node_that_fails_is_replaced_at_once(
    cluster: FakeCluster, error: RangefinderError
) -> None:
    """Where it could not take the work at all, another does, within the same deadline."""
    asked = cluster.ask(5)
    first, failed = await both_asked(cluster)
    cluster.b.fail(failed, error)
    retry = cluster.a.sent.get_nowait()
    assert sorted(failed.shards) == sorted(retry.shards)
    cluster.a.answer(retry)
    cluster.a.answer(first)
    outcome = await asked
    assert (whole(5), NO_REASON) == (found(outcome), reasons(outcome))
    assert (1, 0) == attempts_of(cluster)


async def test_where_all_fail_the_answer_says_why(cluster: FakeCluster) -> None:
    """Nobody is asked twice for a shard."""
    asked = cluster.ask(5)
    first, second = await both_asked(cluster)
    cluster.b.fail(second, UNAVAILABLE)
    cluster.a.fail(cluster.a.sent.get_nowait(), UNAVAILABLE)
    cluster.a.answer(first)
    outcome = await asked
    assert {UNAVAILABLE.reason} == {reasons(outcome)[name] for name in second.shards}
    assert (True, True) == (cluster.a.sent.empty(), cluster.b.sent.empty())


@pytest.mark.parametrize("error", [InvalidRequest("x", "y"), Internal("bug")])
async def test_what_would_fail_anywhere_is_not_asked_again(
    cluster: FakeCluster, error: RangefinderError
) -> None:
    """Its reason is told."""
    asked = cluster.ask(5)
    first, failed = await both_asked(cluster)
    cluster.b.fail(failed, error)
    cluster.a.answer(first)
    outcome = await asked
    assert {error.reason} == {reasons(outcome)[name] for name in failed.shards}
    assert cluster.a.sent.empty()


async def test_a_lost_node_costs_nothing(cluster: FakeCluster) -> None:
    """Its connection breaks with a batch on it; the next batches do not go there."""
    asked = cluster.ask(5)
    first, failed = await both_asked(cluster)
    cluster.b.is_open = False
    cluster.b.fail(failed, UNAVAILABLE)
    for sent in (first, cluster.a.sent.get_nowait()):
        cluster.a.answer(sent)
    assert whole(5) == found(await asked)
    again = cluster.ask(6)
    sent = await cluster.a.next_sent()
    assert sorted(NO_REASON) == sorted(sent.shards)
    cluster.a.answer(sent)
    assert (whole(6), True) == (found(await again), cluster.b.sent.empty())


async def test_a_slow_node_is_turned_away_from(cluster: FakeCluster) -> None:
    """After some slow answers batches go to the other one, but for a try now and then."""

    async def answer(node: FakeNode, delay_s: float) -> None:
        while True:
            sent = await node.sent.get()
            await asyncio.sleep(delay_s)
            node.answer(sent)

    answering = [
        asyncio.create_task(answer(cluster.a, 0.0), name="a"),
        asyncio.create_task(answer(cluster.b, 0.05), name="b"),
    ]
    for query in range(8):
        assert whole(query) == found(await cluster.ask(query))
    before = cluster.b.next_id
    for query in range(8, 20):
        assert whole(query) == found(await cluster.ask(query))
    assert cluster.b.next_id - before <= 3
    while cluster.b.waiting:
        await asyncio.sleep(0.01)
    for task in answering:
        task.cancel()
    await asyncio.gather(*answering, return_exceptions=True)


async def test_a_patient_caller_costs_no_one_else_the_hedge(cluster: FakeCluster) -> None:
    """Others are asked in time for the first deadline of a batch, not for the last."""
    first = cluster.ask(1)
    sent = await both_asked(cluster)
    hasty, patient = cluster.ask(5, allowed_s=SHORT_S), cluster.ask(6, allowed_s=30.0)
    await asyncio.sleep(0)
    cluster.a.answer(sent[0])
    cluster.b.answer(sent[1])
    await first
    mine, kept = await both_asked(cluster)
    cluster.a.answer(mine)
    instead = await cluster.a.next_sent()
    assert ([5, 6], sorted(kept.shards)) == (instead.queries, sorted(instead.shards))
    cluster.a.answer(instead)
    assert (whole(5), whole(6)) == (found(await hasty), found(await patient))
    cluster.b.answer(kept)
