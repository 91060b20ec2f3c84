"""RetrieveStream as a caller sees it: many batches in flight, whatever becomes of the call beneath."""

import asyncio
import random
import time
from collections.abc import Sequence

import numpy.typing as npt

from rangefinder.answers import Ids, RetrievedBatch
from rangefinder.client.batch import batch_of, batch_request
from rangefinder.client.routers import Routers
from rangefinder.client.stream_call import StreamCall
from rangefinder.deadline import Deadline
from rangefinder.errors import DeadlineSpent, ReplicaUnavailable
from rangefinder.v1.recommendation_pb2 import RetrieveBatchRequest, RetrieveBatchResponse

BATCHES_IN_FLIGHT_MAX = 64  # As many as a router takes of one stream.

_REOPEN_S_MIN, _REOPEN_S_MAX = 0.05, 1.0
_CLOSE_S_MAX = 1.0


class RetrieveStream:
    """Ask from as many tasks as you like. Made and closed by Client.stream()."""

    def __init__(self, routers: Routers, deadline_s: float) -> None:
        self._routers, self._deadline_s = routers, deadline_s
        self._credits = asyncio.Semaphore(BATCHES_IN_FLIGHT_MAX)
        self._call: StreamCall | None = None  # The one for the next batch.
        self._calls: set[StreamCall] = set()  # With those that are about to end.
        self._useless_count, self._reopen_at_s = 0, 0.0
        self._is_closed = False

    async def retrieve_batch(
        self,
        queries: npt.ArrayLike,
        item_count: int = 100,
        *,
        search_width: int = 0,
        exact: bool = False,
        excluded_ids: Sequence[Ids | Sequence[int]] = (),
        minimum_coverage: float = 0.0,
        release: str = "",
        deadline_s: float | None = None,
    ) -> RetrievedBatch:
        """As Client.retrieve_batch. At most 64 batches are in flight; others wait for their turn."""
        allowed_s = self._deadline_s if deadline_s is None else deadline_s
        deadline = Deadline.after(allowed_s, time.monotonic)
        request = batch_request(
            queries,
            item_count,
            search_width=search_width,
            exact=exact,
            excluded_ids=excluded_ids,
            minimum_coverage=minimum_coverage,
            release=release,
        )
        await self._take_credit(deadline)
        try:
            answer = await self._routers.attempted(lambda: self._attempt(request, deadline), deadline)
        finally:
            self._credits.release()
        return batch_of(answer)

    async def close(self) -> None:
        """End all calls; what is under way fails."""
        self._is_closed = True
        await asyncio.gather(*(call.close(_CLOSE_S_MAX) for call in self._calls))

    async def _take_credit(self, deadline: Deadline) -> None:
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                await self._credits.acquire()
        except TimeoutError:
            raise DeadlineSpent(
                f"{BATCHES_IN_FLIGHT_MAX} batches were in flight until the deadline of the next"
            ) from None

    async def _attempt(
        self, request: RetrieveBatchRequest, deadline: Deadline
    ) -> RetrieveBatchResponse:
        call = await self._usable_call(deadline)
        return await self._routers.judged(call.router, call.ask(request, deadline), deadline)

    async def _usable_call(self, deadline: Deadline) -> StreamCall:
        """The call in use, or a new one, which may have to wait."""
        while (call := self._call_in_use()) is None:
            if self._is_closed:
                raise ReplicaUnavailable("the stream is closed: open another")
            pause_s = self._reopen_at_s - time.monotonic()
            if pause_s <= 0:
                return self._open()
            if pause_s > deadline.remaining_s():
                raise ReplicaUnavailable("no router takes a stream: see whether one is there")
            await asyncio.sleep(pause_s)
        return call

    def _call_in_use(self) -> StreamCall | None:
        call = self._call
        if call is None or not call.is_open:
            return None
        if not call.router.standing.is_away:
            return call
        if self._routers.choose(tried=call.router).standing.is_away:
            return call  # There is none that would be better.
        call.finish()
        return None

    def _open(self) -> StreamCall:
        before = self._call.router if self._call is not None else None
        router = self._routers.choose(tried=before)
        self._call = StreamCall(router, self._routers, self._take_leave)
        self._calls.add(self._call)
        return self._call

    def _take_leave(self, call: StreamCall) -> None:
        """A call is over. Once every router had one that answered nothing, the next has to wait."""
        self._calls.discard(call)
        self._useless_count = 0 if call.has_answered else self._useless_count + 1
        rounds = self._useless_count - len(self._routers.all)
        if rounds >= 0:
            delay_s = min(_REOPEN_S_MIN * 2.0 ** min(rounds, 10), _REOPEN_S_MAX)
            self._reopen_at_s = time.monotonic() + delay_s * random.uniform(0.5, 1.0)
