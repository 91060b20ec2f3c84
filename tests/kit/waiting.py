"""Waiting for what other processes do, with a bound: they have no event to wait for."""

import asyncio
import time
from collections.abc import Awaitable, Callable

_POLL_S = 0.02


async def until(condition: Callable[[], bool], *, within_s: float, what: str) -> float:
    """Return how many seconds it took until the condition held."""

    async def check() -> bool:
        return condition()

    return await until_async(check, within_s=within_s, what=what)


async def until_async(condition: Callable[[], Awaitable[bool]], *, within_s: float, what: str) -> float:
    """Return how many seconds it took until the condition held."""
    began_s = time.monotonic()
    while not await condition():
        if time.monotonic() - began_s > within_s:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(_POLL_S)
    return time.monotonic() - began_s
