"""A bound on the calls under way: what comes beyond is refused at once, not queued."""

import asyncio

from rangefinder.errors import NotReady, Overloaded


class Admission:
    """Counts the calls of a server under way, so that they are bounded and can be waited for.

    A context manager: each block holds one place. Entering raises Overloaded where all are taken,
    NotReady while draining.
    """

    def __init__(self, calls_max: int) -> None:
        self._calls_max, self._count = calls_max, 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        if self._closed:
            raise NotReady("this server is draining: ask another")
        if self._count >= self._calls_max:
            raise Overloaded(f"{self._calls_max} calls are under way: come back later")
        self._count += 1
        self._idle.clear()

    def __exit__(self, *failure: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._idle.set()

    def close(self) -> None:
        """Admit no more."""
        self._closed = True

    async def wait_idle(self) -> None:
        """Return when no call is under way."""
        await self._idle.wait()
