"""Waiting for what other processes do, with a bound: they have no event to wait for."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from rangefinder import Client, RangefinderError

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


async def until_all_used(client: Client, *, within_s: float) -> None:
    """Return when the client's router uses every replica."""

    async def are_used() -> bool:
        with contextlib.suppress(RangefinderError):
            replicas = (await client.cluster_status(deadline_s=2.0)).replicas
            return all(each.healthy for each in replicas)
        return False

    await until_async(are_used, within_s=within_s, what="every replica is used")
