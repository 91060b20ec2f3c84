"""The line of calls before a server's work: turns, refusals, and that no place is ever lost."""

import asyncio
import random
import time

import pytest

from rangefinder.concurrency_limit import ConcurrencyLimit
from rangefinder.edge.admission import CallLine
from rangefinder.errors import DeadlineSpent, Overloaded


def line_of(places: int) -> CallLine:
    """So many calls run, and as many wait."""
    limit = ConcurrencyLimit(time.monotonic(), limit_min=places, limit_max=places, tolerated_s=1.0)
    return CallLine(limit)


async def entered(line: CallLine, allowed_s: float = 30.0) -> float:
    """Enter, with the time of arrival."""
    now_s = time.monotonic()
    await line.enter(now_s, now_s + allowed_s)
    return now_s


def leave(line: CallLine, arrived_s: float) -> None:
    """Long before its time is up."""
    line.leave(arrived_s, arrived_s + 30.0)


async def test_turns_come_in_order_of_arrival() -> None:
    """Two run, two wait, the fifth is refused and told when to come back."""
    line, order = line_of(2), []

    async def call(number: int) -> None:
        arrived_s = await entered(line)
        order.append(number)
        await asyncio.sleep(0)
        leave(line, arrived_s)

    calls = [asyncio.create_task(call(number), name=f"call-{number}") for number in range(4)]
    await asyncio.sleep(0)
    assert ([0, 1], 2) == (order, line.waiting)
    with pytest.raises(Overloaded) as refused:
        await entered(line)
    assert 50 <= refused.value.retry_after_ms <= 1_000
    await asyncio.gather(*calls)
    assert ([0, 1, 2, 3], 0) == (order, line.waiting)


async def test_a_call_whose_time_is_up_never_begins() -> None:
    """Also where its turn comes in that moment."""
    line = line_of(1)
    arrived_s = await entered(line)
    waiting = asyncio.create_task(entered(line, allowed_s=-1.0), name="waiting")
    await asyncio.sleep(0)
    leave(line, arrived_s)
    with pytest.raises(DeadlineSpent):
        await waiting
    leave(line, await entered(line))


async def test_a_call_that_waits_is_told_when_its_time_is_up() -> None:
    """Long before its turn, in whichever order deadlines come; then others may wait in its place."""
    line = line_of(3)
    held = [await entered(line) for _ in range(3)]
    waits = [
        asyncio.create_task(entered(line, allowed_s), name="waiting") for allowed_s in (30.0, 0.1, 0.05)
    ]
    await asyncio.sleep(0)
    for place in (2, 1):
        with pytest.raises(DeadlineSpent):
            await asyncio.wait_for(waits[place], 10)
        assert place == line.waiting
    leave(line, held[0])
    leave(line, await waits[0])
    for arrived_s in held[1:]:
        leave(line, arrived_s)
    assert (0, 0) == (line.waiting, line.running)


@pytest.mark.parametrize("seed", range(20))
async def test_callers_that_go_leave_their_place(seed: int) -> None:
    """Whenever they are cancelled: while they wait, as it is their turn, or while they run."""
    chance, line = random.Random(seed), line_of(3)

    async def call() -> None:
        arrived_s = await entered(line)
        try:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            leave(line, arrived_s)

    for _ in range(200):
        calls = [asyncio.create_task(call(), name="call") for _ in range(chance.randrange(1, 7))]
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        for each in calls:
            if chance.random() < 0.5:
                each.cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in outcomes} <= {type(None), asyncio.CancelledError}
    assert 0 == line.waiting
    held = [await asyncio.wait_for(entered(line), 5) for _ in range(3)]
    for arrived_s in held:
        leave(line, arrived_s)


async def test_a_caller_that_goes_as_its_time_is_up_had_no_place() -> None:
    """Expired and cancelled in one moment, it gives nothing back: one place stays one."""
    line = line_of(1)
    arrived_s = await entered(line)
    waiting = asyncio.create_task(entered(line, allowed_s=-1.0), name="waiting")
    await asyncio.sleep(0)
    leave(line, arrived_s)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert 0 == line.running


async def test_callers_that_have_gone_take_nobodys_place_in_the_line() -> None:
    """As soon as one is gone, another may wait; and thousands that go at once cost no recursion."""
    line = line_of(1_500)
    held = [await entered(line) for _ in range(1_500)]
    waiting = [asyncio.create_task(entered(line), name="waiting") for _ in range(1_500)]
    await asyncio.sleep(0)
    assert 1_500 == line.waiting
    for each in waiting:
        each.cancel()
    leave(line, held.pop())
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (0, 1_499) == (line.waiting, line.running)
    for arrived_s in held:
        leave(line, arrived_s)
    assert 0 == line.running
