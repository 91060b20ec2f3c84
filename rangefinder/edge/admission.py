"""A bound on the calls under way: what comes beyond is refused at once, not queued."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from rangefinder.errors import Overloaded


class Admission:
    """Counts the calls of a server under way, so that they are bounded and can be waited for."""

    def __init__(self, calls_max: int) -> None:
        self._calls_max, self._count = calls_max, 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold one place. Raises Overloaded where all are taken."""
        if self._count >= self._calls_max:
            raise Overloaded(f"{self._calls_max} calls are under way: come back later")
        self._count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._count -= 1
            if self._count == 0:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no call is under way."""
        await self._idle.wait()
