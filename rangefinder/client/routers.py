"""All routers of a client: whom to ask, whom to ask next, and who is worth asking again."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from rangefinder.client.affinity import Affinity
from rangefinder.client.retry import (
    ABSENT,
    ATTEMPT_S_MIN,
    MOVE_COUNT_MAX,
    RetryBudget,
    pause_before_retry_s,
)
from rangefinder.client.router import Router, Rpc
from rangefinder.deadline import Deadline
from rangefinder.errors import DeadlineSpent, Draining, RangefinderError

T = TypeVar("T")

# Before the only router is asked again: a moment in which it may make another connection.
_SOLE_PAUSE_S_MAX = 0.02


class Routers:
    """Chooses among them, retries under one budget, and probes those that are away."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.all = [Router(address) for address in addresses]
        self._affinity = Affinity(addresses)
        # Clients that start together do not all begin with the same one.
        self._turns = itertools.count(random.randrange(len(self.all)))
        self._budget = RetryBudget(updated_s=time.monotonic())
        self._probing: dict[Router, asyncio.Task[None]] = {}
        self._is_closed = False

    def choose(self, user_id: str = "", tried: Router | None = None) -> Router:
        """The user's router, or the next in turn where there is no user, of those worth asking.

        That is: not tried already, and not away; where there is none, better one that is than none.
        """
        order = [self.all[place] for place in self._affinity.order(user_id)] if user_id else self.all
        others = [router for router in order if router is not tried] or order
        present = [router for router in others if not router.standing.is_away] or others
        return present[0] if user_id else present[next(self._turns) % len(present)]

    async def ask(self, rpc: Rpc, request: Any, deadline_s: float, user_id: str = "") -> Any:
        """The answer of one router, or of a second one. Raises RangefinderError."""
        deadline = Deadline.after(deadline_s, time.monotonic)
        tried: Router | None = None

        async def attempt() -> Any:
            nonlocal tried
            tried = router = self.choose(user_id, tried)
            return await self.judged(router, router.connection().ask(rpc, request, deadline), deadline)

        return await self.attempted(attempt, deadline)

    async def attempted(self, attempt: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        """Attempt it, and once more where that may help, is paid for, and there is time left."""
        self._budget.record_request(time.monotonic())
        moves = retries = 0
        while True:
            try:
                return await attempt()
            except RangefinderError as error:
                pause_s = self._pause_s(error)
                if pause_s is None or deadline.remaining_s() < pause_s + ATTEMPT_S_MIN:
                    raise
                if isinstance(error, Draining) and moves < MOVE_COUNT_MAX:
                    moves += 1
                elif retries == 0 and self._budget.spend(time.monotonic()):
                    retries += 1
                else:
                    raise
            await asyncio.sleep(pause_s)

    async def judged(self, router: Router, answer: Awaitable[T], deadline: Deadline) -> T:
        """The answer of a router, which adds to its standing."""
        waits_s = deadline.remaining_s()
        try:
            answered = await answer
        except ABSENT:
            self.record_absence(router)
            raise
        except DeadlineSpent:
            if router.standing.record_silence(waits_s):
                self._probe(router)
            raise
        except RangefinderError:
            router.standing.record_answer()
            raise
        router.standing.record_answer()
        return answered

    def record_absence(self, router: Router) -> None:
        """A router cannot be reached, or takes no more."""
        if router.standing.record_absence():
            self._probe(router)

    async def close(self) -> None:
        self._is_closed = True
        for probing in self._probing.values():
            probing.cancel()
        await asyncio.gather(*self._probing.values(), return_exceptions=True)
        for router in self.all:
            await router.close()

    def _pause_s(self, error: RangefinderError) -> float | None:
        pause_s = pause_before_retry_s(error)
        if pause_s is None:
            return None
        moment_s = random.uniform(0, _SOLE_PAUSE_S_MAX) if len(self.all) == 1 else 0.0
        return pause_s * random.uniform(1.0, 1.5) + moment_s

    def _probe(self, router: Router) -> None:
        """Ask after a router until it is ready; not after the only one, which is asked anyway."""
        if len(self.all) > 1 and not self._is_closed:
            self._probing[router] = asyncio.create_task(
                self._until_back(router), name=f"probe-{router.address}"
            )

    async def _until_back(self, router: Router) -> None:
        while True:
            await asyncio.sleep(router.standing.next_probe_s() * random.uniform(0.5, 1.0))
            if await router.connection().is_ready():
                router.standing.record_return()
                return
