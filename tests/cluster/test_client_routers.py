"""A client with several routers, which are scripted: whom it asks, and whom it asks again."""

import asyncio
import contextlib
import time
from collections import Counter
from contextlib import AsyncExitStack

import numpy as np
import pytest

from rangefinder import Client, RangefinderError
from rangefinder.errors import (
    DeadlineSpent,
    Draining,
    InputRefused,
    NotReady,
    Overloaded,
    ReplicaUnavailable,
)
from tests.kit.scripted_router import ScriptedRouter, fail, hang, running, silent, three_routers
from tests.kit.waiting import until, until_async

USERS = [f"user-{number}" for number in range(60)]
QUERY = np.zeros(4, np.float32)
DEADLINE_S = 10.0


def client_of(routers: list[ScriptedRouter]) -> Client:
    return Client(*(router.address for router in routers), deadline_s=DEADLINE_S)


async def homes(client: Client, routers: list[ScriptedRouter]) -> dict[str, int]:
    """Which router was asked about each user."""
    for router in routers:
        router.asked.clear()
    await asyncio.gather(*(client.recommend(user) for user in USERS))
    return {user: place for place, router in enumerate(routers) for user in router.asked}


async def test_a_user_stays_with_a_router_and_comes_back_to_it() -> None:
    """Users spread over the routers, alike for every client; while one is down its users alone are
    asked about elsewhere, and without a failure; when it is ready again they are back."""
    async with AsyncExitStack() as stack:
        stopped = ScriptedRouter()
        others = [await stack.enter_async_context(running(ScriptedRouter())) for _ in range(2)]
        async with running(stopped):
            routers = [stopped, *others]
            client = await stack.enter_async_context(client_of(routers))
            before = await homes(client, routers)
            async with client_of([*others, stopped]) as another:
                assert before == await homes(another, routers)
        without = await homes(client, routers)
        stopped.is_ready = False
        async with running(stopped):
            await until(lambda: stopped.probe_count > 0, within_s=10, what="a probe")
            starting = await homes(client, routers)
            stopped.is_ready = True

            async def are_back() -> bool:
                return before == await homes(client, routers)

            await until_async(are_back, within_s=15, what="users are back")
            # Also over those of its connections that gRPC lets rest after the failures.
            stay = [await homes(client, routers) for _ in range(10)]
    assert {0, 1, 2} == set(before.values())
    moved = {user for user in USERS if before[user] != without[user]}
    assert {user for user in USERS if before[user] == 0} == moved
    assert without == starting
    assert [before] * 10 == stay


async def test_what_knows_no_user_takes_turns() -> None:
    """Of 90 queries each of three routers gets 30; with one of them away, each of two 45."""
    async with three_routers() as routers, client_of(routers) as client:
        for _ in range(90):
            await client.retrieve(QUERY)
        assert [30, 30, 30] == [len(router.asked) for router in routers]
        routers[1].script, routers[1].is_ready = fail("UNAVAILABLE", "NOT_READY"), False
        while len(routers[1].asked) == 30:
            await client.retrieve(QUERY)
        before = Counter({place: len(router.asked) for place, router in enumerate(routers)})
        for _ in range(90):
            await client.retrieve(QUERY)
        after = Counter({place: len(router.asked) for place, router in enumerate(routers)})
    assert {0: 45, 2: 45} == after - before


@pytest.mark.parametrize(
    ("code", "reason", "attempts"),
    [
        ("UNAVAILABLE", "", 2),
        ("UNAVAILABLE", "NOT_READY", 2),
        ("ABORTED", "MAP_CHANGED", 2),
        ("RESOURCE_EXHAUSTED", "OVERLOADED", 2),
        ("RESOURCE_EXHAUSTED", "", 1),
        ("UNAVAILABLE", "COVERAGE_TOO_LOW", 1),
        ("DEADLINE_EXCEEDED", "DEADLINE_SPENT", 1),
        ("DEADLINE_EXCEEDED", "", 1),
        ("INTERNAL", "INTERNAL", 1),
        ("NOT_FOUND", "UNKNOWN_USER", 1),
        ("INVALID_ARGUMENT", "INVALID_REQUEST", 1),
    ],
)
async def test_one_other_router_is_asked_where_that_may_help(
    code: str, reason: str, attempts: int
) -> None:
    """Each kind of failure is asked again once, of another router, or not at all; the caller is told
    the last one."""
    async with three_routers() as routers, client_of(routers) as client:
        for router in routers:
            router.script = fail(code, reason)
        with pytest.raises(RangefinderError) as error:
            await client.recommend("somebody")
        counts = sorted(len(router.asked) for router in routers)
    assert [0, attempts - 1, 1] == counts
    if reason:
        assert reason == error.value.reason


async def test_what_was_cut_off_moves_on_but_not_for_ever() -> None:
    """CANCELLED comes of a server, or a proxy, that ends: four moves and one retry, then it is told."""
    async with three_routers() as routers, client_of(routers) as client:
        for router in routers:
            router.script = fail("CANCELLED")
        with pytest.raises(Draining):
            await client.retrieve(QUERY)
        attempts = sum(len(router.asked) for router in routers)
    assert 1 + 4 + 1 == attempts


async def test_the_only_router_is_asked_twice_too() -> None:
    """A lost connection may be made again; a second failure is the caller's."""
    failing = ScriptedRouter(script=fail("UNAVAILABLE"))
    async with running(failing) as router, client_of([router]) as client:
        with pytest.raises(ReplicaUnavailable):
            await client.retrieve(QUERY)
    assert 2 == len(router.asked)


async def test_an_overloaded_router_is_given_its_time() -> None:
    """The second attempt comes no sooner than OVERLOADED says, and not at all past the deadline."""
    took_s = []
    async with three_routers() as routers, client_of(routers) as client:
        for retry_after_ms in (150, 20_000):
            for router in routers:
                router.script = fail("RESOURCE_EXHAUSTED", "OVERLOADED", retry_after_ms=retry_after_ms)
            began_s = time.monotonic()
            with pytest.raises(Overloaded):
                await client.retrieve(QUERY)
            took_s.append(time.monotonic() - began_s)
        attempts = sum(len(router.asked) for router in routers)
    assert 3 == attempts
    assert took_s[0] >= 0.15
    assert took_s[1] < DEADLINE_S / 2


async def test_retries_end_with_their_budget() -> None:
    """Where every router refuses, 1,000 requests make at most a fifth more attempts, a hundred, and ten
    a second."""
    async with three_routers() as routers, client_of(routers) as client:
        for router in routers:
            router.script = fail("ABORTED", "MAP_CHANGED")
        began_s = time.monotonic()
        for _ in range(1_000):
            with contextlib.suppress(RangefinderError):
                await client.retrieve(QUERY)
        took_s = time.monotonic() - began_s
        attempts = sum(len(router.asked) for router in routers)
    assert 1_200 < attempts <= 1_200 + 100 + 10 * took_s + 1


async def test_a_frozen_router_is_left_out() -> None:
    """After three deadlines without a word its users are asked about elsewhere."""
    async with three_routers() as routers, client_of(routers) as client:
        homes_before = await homes(client, routers)
        user = next(iter(homes_before))
        frozen = routers[homes_before[user]]
        frozen.script, frozen.is_ready = hang, False
        for _ in range(3):
            with pytest.raises(DeadlineSpent):
                await client.recommend(user, deadline_s=0.3)
        frozen.asked.clear()
        await client.recommend(user)
        assert [] == frozen.asked


async def test_with_no_router_ready_the_caller_is_told() -> None:
    """Routers that are away are asked nevertheless where there is none better."""
    async with three_routers() as routers, client_of(routers) as client:
        for router in routers:
            router.script, router.is_ready = fail("UNAVAILABLE", "NOT_READY"), False
        for _ in range(4):
            with pytest.raises(NotReady):
                await client.retrieve(QUERY)
        for router in routers:
            router.script = None
        await client.retrieve(QUERY)


async def test_a_caller_that_gives_up_cancels_no_call() -> None:
    """A call whose caller is cancelled runs out by itself: gRPC leaks what is cancelled."""
    release = asyncio.Event()

    async def wait(context: object) -> None:
        await release.wait()

    async with running(ScriptedRouter(script=wait)) as router, client_of([router]) as client:
        asking = [asyncio.create_task(client.retrieve(QUERY)) for _ in range(20)]
        await until(lambda: router.under_way == 20, within_s=10, what="20 calls under way")
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        release.set()
        await until(lambda: router.under_way == 0, within_s=10, what="all calls are over")
    assert (20, 0) == (sum(task.cancelled() for task in asking), router.cut_off)


async def test_what_is_under_way_when_a_client_is_closed_fails() -> None:
    """Calls, batches, and what is asked later, with an error of ours: nobody's task is cancelled."""
    routers = [ScriptedRouter(script=hang, stream_script=silent) for _ in range(2)]
    async with running(routers[0]), running(routers[1]):
        async with client_of(routers) as client, client.stream() as stream:
            batches = [asyncio.create_task(stream.retrieve_batch([QUERY])) for _ in range(5)]
            calls = [asyncio.create_task(client.retrieve(QUERY)) for _ in range(5)]
            await until(
                lambda: sum(len(each.asked + each.batch_ids) for each in routers) == 10,
                within_s=10,
                what="all were asked",
            )
        late = [client.retrieve(QUERY), stream.retrieve_batch([QUERY])]
        outcomes = await asyncio.gather(*batches, *calls, *late, return_exceptions=True)
        await until(
            lambda: sum(each.under_way for each in routers) == 0, within_s=5, what="no call is left"
        )
    assert {ReplicaUnavailable} == {type(outcome) for outcome in outcomes}


async def test_a_closed_client_leaves_nothing() -> None:
    """After calls, retries, probes and a stream no task of the client is left."""
    before = asyncio.all_tasks()
    async with three_routers() as routers:
        async with client_of(routers) as client, client.stream() as stream:
            routers[0].script, routers[0].is_ready = fail("UNAVAILABLE"), False
            await asyncio.gather(*(client.retrieve(QUERY) for _ in range(10)))
            await stream.retrieve_batch([QUERY])
            names = {task.get_name() for task in asyncio.all_tasks() - before}
            assert {f"probe-{routers[0].address}", "read-answers", "write-batches"} <= names
        ours = {"probe", "read", "write"}
        left = [task.get_name() for task in asyncio.all_tasks() - before]
        assert [] == [name for name in left if name.partition("-")[0] in ours]
        await until(
            lambda: sum(router.under_way for router in routers) == 0, within_s=5, what="no call is left"
        )


@pytest.mark.parametrize("addresses", [("",), ("127.0.0.1:7000", "  "), (["127.0.0.1:7000"],)])
def test_what_is_no_address_is_refused(addresses: tuple[str, ...]) -> None:
    """Empty addresses, and a list instead of arguments, are refused when the client is made."""
    with pytest.raises(InputRefused, match="give host:port of each router"):
        Client(*addresses)
