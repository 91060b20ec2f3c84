"""Where every shard is on three nodes and two of them are of no use: the third is asked in time."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from rangefinder.errors import ReplicaUnavailable
from router import gatherer as gatherer_module
from tests.unit.fake_nodes import FakeCluster, FakeNode, Sent, found, whole

ALLOWED_S = 0.6
SHARDS = ["s-0", "s-1", "s-2", "s-3"]


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeCluster]:
    """Node c is not there at first. What is still awaited at the end is answered then."""
    monkeypatch.setattr(gatherer_module, "_LATE_S_MIN", 60.0)
    monkeypatch.setattr(gatherer_module, "_LATE_S_MAX", 60.0)
    cluster = FakeCluster(is_replicated=True, names="abc")
    cluster.nodes["c"].is_open = False
    cluster.gatherer.dispatch.budget.record_queries(time.monotonic(), 1_000)
    yield cluster
    for node in cluster.nodes.values():
        for sent in list(node.waiting.values()):
            node.answer(sent)
    assert cluster.is_idle


async def take(node: FakeNode, *shards: str) -> list[Sent]:
    """The next searches that a node gets until it was asked for all of these shards."""
    taken: list[Sent] = []
    while {name for sent in taken for name in sent.shards} != set(shards):
        taken.append(await node.next_sent())
    return taken


async def test_a_hedge_that_is_late_is_hedged(cluster: FakeCluster) -> None:
    """Two of three say nothing: what both owe is asked of the third, which came in between."""
    asked, c = cluster.ask(5, allowed_s=ALLOWED_S), cluster.nodes["c"]
    await asyncio.gather(take(cluster.a, *SHARDS), take(cluster.b, *SHARDS))
    c.is_open = True
    for sent in await take(c, *SHARDS):
        c.answer(sent)
    assert whole(5) == found(await asked)


async def test_a_hedge_that_fails_is_replaced_at_once(cluster: FakeCluster) -> None:
    """Although the one that was asked first may still answer: it is late already."""
    asked, c = cluster.ask(5, allowed_s=ALLOWED_S), cluster.nodes["c"]
    kept, first = await cluster.a.next_sent(), await cluster.b.next_sent()
    cluster.b.answer(first)
    hedge = await cluster.b.next_sent()
    c.is_open = True
    cluster.b.fail(hedge, ReplicaUnavailable("gone"))
    instead = c.sent.get_nowait()
    assert sorted(kept.shards) == sorted(instead.shards)
    c.answer(instead)
    assert whole(5) == found(await asked)


@pytest.mark.parametrize("comes_after_s", [0.25, 0.45])
async def test_who_comes_in_time_is_asked(cluster: FakeCluster, comes_after_s: float) -> None:
    """No other was usable when a node was late, nor at half-time: it is not the last look."""
    asked, c = cluster.ask(5, allowed_s=ALLOWED_S), cluster.nodes["c"]
    kept, first = await cluster.a.next_sent(), await cluster.b.next_sent()
    cluster.b.answer(first)
    cluster.b.is_open = False
    await asyncio.sleep(comes_after_s)
    c.is_open = True
    for sent in await take(c, *kept.shards):
        c.answer(sent)
    assert whole(5) == found(await asked)


async def test_a_failed_hedge_leaves_the_first_to_be_looked_at(cluster: FakeCluster) -> None:
    """Where nobody can be asked instead at once, somebody is a little later."""
    asked, c = cluster.ask(5, allowed_s=ALLOWED_S), cluster.nodes["c"]
    kept, first = await cluster.a.next_sent(), await cluster.b.next_sent()
    cluster.b.answer(first)
    cluster.b.fail(await cluster.b.next_sent(), ReplicaUnavailable("gone"))
    c.is_open = True
    for sent in await take(c, *kept.shards):
        c.answer(sent)
    assert whole(5) == found(await asked)


async def test_where_all_were_asked_nobody_looks_again() -> None:
    """There is nobody left: no timer runs but that of the deadline."""
    cluster = FakeCluster(is_replicated=True)
    cluster.gatherer.dispatch.budget.record_queries(time.monotonic(), 1_000)
    asked = cluster.ask(5, allowed_s=60.0)
    await asyncio.gather(cluster.a.next_sent(), cluster.b.next_sent())
    (batch,) = cluster.gatherer._batches
    looks = 0
    while batch.timers and looks < 10:
        number, timer = next(iter(batch.timers.items()))
        timer.cancel()
        cluster.gatherer.dispatch._on_late(batch, number)
        looks += 1
    assert (4, 4) == (looks, len(batch.search_ids))
    for node in cluster.nodes.values():
        for sent in list(node.waiting.values()):
            node.answer(sent)
    assert whole(5) == found(await asked)
