"""A bound on the calls under way: what comes beyond is refused at once, not queued."""

import asyncio

from rangefinder.errors import Overloaded

# Long-lived calls hold no work by themselves, but memory, and they must not take the places of others.
STREAMS_MAX = 256


class Places:
    """A number of places. A context manager: each block holds one.

    Entering raises Overloaded where all are taken.
    """

    def __init__(self, what: str, count_max: int) -> None:
        self._what, self._count_max, self._count = what, count_max, 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        if self._count >= self._count_max:
            raise Overloaded(f"{self._count_max} {self._what} are under way: come back later")
        self._count += 1
        self._idle.clear()

    def __exit__(self, *failure: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return when none is held."""
        await self._idle.wait()


class Admission:
    """The calls of a server under way, so that they are bounded and can be waited for."""

    def __init__(self, calls_max: int, streams_max: int = STREAMS_MAX) -> None:
        self.calls, self.streams = Places("calls", calls_max), Places("streams", streams_max)

    async def wait_idle(self) -> None:
        """Return when no call is under way."""
        await self.calls.wait_idle()
        await self.streams.wait_idle()
