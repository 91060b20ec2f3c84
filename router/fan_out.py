"""Calls to several nodes at once, under one deadline: for items and status. Searches are batched."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from rangefinder.deadline import Deadline
from rangefinder.edge.status import translated
from rangefinder.errors import DeadlineSpent, RangefinderError

T = TypeVar("T")

# Calls end by their own timeout: cancelling one leaks (grpc issue #43360).
_BACKSTOP_S = 0.02


async def fan_out(
    calls: Mapping[str, Callable[[float], Awaitable[T]]], deadline: Deadline
) -> dict[str, T | RangefinderError]:
    """Each node's answer, or why there is none; a call is given its timeout in seconds.

    A slow or failed node costs coverage, never the rest. An error that is not ours is a bug: it
    cancels the other calls and propagates.
    """
    outcomes: dict[str, T | RangefinderError] = {}

    async def ask(node: str, call: Callable[[float], Awaitable[T]]) -> None:
        left_s = deadline.remaining_s()
        try:
            with translated():
                async with asyncio.timeout(left_s + _BACKSTOP_S):
                    outcomes[node] = await call(left_s)
        except TimeoutError:
            outcomes[node] = DeadlineSpent(f"{node} did not answer in time")
        except RangefinderError as error:
            outcomes[node] = error

    async with asyncio.TaskGroup() as group:
        for node, call in calls.items():
            group.create_task(ask(node, call), name=f"ask-{node}")
    return outcomes
