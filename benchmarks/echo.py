"""A call against an empty one, in turn: the unit of every latency here."""

import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from rangefinder.cli.bench.echo import METHOD, running_echo
from rangefinder.edge.channel import open_channel

Call = Callable[[], Awaitable[None]]

BLOCK = 100


async def timed_ms(call: Call, count: int) -> list[float]:
    """Milliseconds of each of `count` calls, one at a time."""
    durations = []
    for _ in range(count):
        began_s = time.perf_counter()
        await call()
        durations.append((time.perf_counter() - began_s) * 1000)
    return durations


async def p50_against_echo(call: Call, block_count: int) -> tuple[float, float]:
    """The medians of a call and of an empty one, in milliseconds.

    Blocks of 100 of each in turn, so that both meet the same machine, whatever else it does.
    """
    ours, empty = [], []
    async with running_echo() as server, open_channel(server.address) as channel:
        method: Any = channel.unary_unary(METHOD)

        async def echo() -> None:
            await method(b"")

        await timed_ms(call, BLOCK)
        await timed_ms(echo, BLOCK)
        for _ in range(block_count):
            ours += await timed_ms(call, BLOCK)
            empty += await timed_ms(echo, BLOCK)
    return median(ours), median(empty)
