"""Bounds on the calls under way, fixed ones and one that follows latency."""

import asyncio
import time
from collections.abc import Iterable

from rangefinder.concurrency_limit import ConcurrencyLimit, Line, Place
from rangefinder.errors import DeadlineSpent, Overloaded

# Long-lived calls hold no work by themselves, but memory, and they must not take the places of others.
STREAMS_MAX = 256

_EXPIRY_S_MIN = 0.001  # A timer may be early by less, and looks at the line for nothing.


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


class CallLine:
    """Calls that run and calls that wait for it, as many as keep latency down; others are refused."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self._line: Line[asyncio.Future[None]] = Line(limit)
        # One timer for all that wait: calls mostly have like times, so it is seldom set.
        self._expiry: asyncio.TimerHandle | None = None
        self._expires_at_s = 0.0

    @property
    def limit(self) -> int:
        """Calls that may run now."""
        return self._line.limit.limit

    @property
    def running(self) -> int:
        return self._line.running

    @property
    def waiting(self) -> int:
        return self._line.waiting

    async def enter(self, now_s: float, ends_at_s: float) -> None:
        """Return when a call may run. Raises Overloaded at once, DeadlineSpent where none was free."""
        turn = asyncio.get_running_loop().create_future()
        match self._line.enter(now_s, ends_at_s, turn):
            case Place.RUNS:
                return
            case Place.WAITS:
                self._watch(ends_at_s)
                await self._turn_of(turn, now_s, ends_at_s)
            case Place.REFUSED:
                retry_after_ms = int(self._line.limit.retry_after_s * 1000)
                raise Overloaded("as many calls are under way as can be: come later", retry_after_ms)

    async def _turn_of(self, turn: "asyncio.Future[None]", arrived_s: float, ends_at_s: float) -> None:
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line.drop(turn)
            elif turn.exception() is None:  # It was its turn, and nobody knew that it had gone.
                self.leave(arrived_s, ends_at_s)
            raise

    def leave(self, arrived_s: float, ends_at_s: float) -> None:
        """A call that ran has ended; those that wait longest go on."""
        places = 1
        while places:
            places -= 1
            begun, expired = self._line.leave(time.monotonic(), arrived_s, ends_at_s)
            for turn in begun:
                if turn.done():  # Its caller went just now: the next one may go on.
                    places += 1
                else:
                    turn.set_result(None)
            _tell_expired(expired)

    def _watch(self, ends_at_s: float) -> None:
        """Look at the line no later than when the time of one that waits is up."""
        if self._expiry is not None:
            if self._expires_at_s <= ends_at_s:
                return
            self._expiry.cancel()
        left_s = max(ends_at_s - time.monotonic(), _EXPIRY_S_MIN)
        self._expires_at_s = ends_at_s
        self._expiry = asyncio.get_running_loop().call_later(left_s, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        _tell_expired(self._line.expire(time.monotonic()))
        if self._line.waiting:
            self._watch(self._line.next_end_s)


def _tell_expired(turns: "Iterable[asyncio.Future[None]]") -> None:
    for turn in turns:
        if not turn.done():
            turn.set_exception(DeadlineSpent("the time was up before the call could begin"))


class Admission:
    """The calls of a server under way, so that they are bounded and can be waited for."""

    def __init__(self, calls_max: int, streams_max: int = STREAMS_MAX) -> None:
        self.calls, self.streams = Places("calls", calls_max), Places("streams", streams_max)

    async def wait_idle(self) -> None:
        """Return when no call is under way."""
        await self.calls.wait_idle()
        await self.streams.wait_idle()
