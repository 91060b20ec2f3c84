"""Callers that ask a cluster all the time, while something happens to it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rangefinder import Client, RangefinderError

_CALLERS = 6
_PAUSE_S = 0.01  # So that there is something left of the machine for what happens.
_DEADLINE_S = 10.0  # A machine that stands still for a moment fails no request.


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was not answered."""

    began_s: float
    reason: str
    message: str


@dataclass(slots=True)
class Load:
    """What became of the requests."""

    answered: int = 0
    failed: list[Failure] = field(default_factory=list)


@dataclass(slots=True)
class ItemReading:
    """Reads the same items again and again."""

    ids: Sequence[int]
    missed: int = 0

    async def __call__(self, client: Client) -> None:
        read = await client.get_items(list(self.ids))
        self.missed += [item.id for item in read.items] != list(self.ids)


@asynccontextmanager
async def steady_load(address: str, ask: Callable[[Client], Awaitable[object]]) -> AsyncIterator[Load]:
    """Ask until the block ends, and let what is under way then be answered."""
    load, ended = Load(), asyncio.Event()

    async def one(client: Client) -> None:
        began_s = time.monotonic()
        try:
            await ask(client)
        except RangefinderError as error:
            load.failed.append(Failure(began_s, error.reason, error.message))
        else:
            load.answered += 1

    async def keep_asking(client: Client) -> None:
        while not ended.is_set():
            await one(client)
            await asyncio.sleep(_PAUSE_S)

    clients = [Client(address, deadline_s=_DEADLINE_S) for _ in range(_CALLERS)]
    try:
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                group.create_task(keep_asking(client), name=f"caller-{number}")
            try:
                yield load
            finally:
                ended.set()
    finally:
        for client in clients:
            await client.close()
