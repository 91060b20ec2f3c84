"""One call of RetrieveStream: batches by their tag, until the router drains, breaks, or it is closed.

A batch that nobody waits for any more is dropped by a message, never by cancelling the call. The call
always ends: by itself, or cancelled once when it is given up.
"""

import asyncio
import itertools
from collections.abc import Callable

import grpc

from rangefinder.client.retry import ABSENT
from rangefinder.client.router import Router
from rangefinder.client.routers import Routers
from rangefinder.deadline import Deadline
from rangefinder.edge.status import UnexpectedStatus, error_of, error_with_reason
from rangefinder.errors import DeadlineSpent, Draining, RangefinderError, ReplicaUnavailable
from rangefinder.v1.recommendation_pb2 import (
    RetrieveBatchRequest,
    RetrieveBatchResponse,
    RetrieveStreamRequest,
    RetrieveStreamResponse,
)

Outcome = RetrieveBatchResponse | RangefinderError

# A router that drains has so long to answer what it has read: no deadline is longer.
_FAREWELL_S_MAX = 10.0
_TIME_ALLOWED_MS_MAX = 10_000


class StreamCall:
    """A call to one router, its reader and its writer."""

    def __init__(
        self, router: Router, routers: Routers, on_end: "Callable[[StreamCall], None]"
    ) -> None:
        self.router, self.is_open, self.has_answered = router, True, False
        self._routers, self._on_end = routers, on_end
        self._connection = router.connection()
        self._connection.in_flight += 1
        self._call = self._connection.recommendations.RetrieveStream()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Outcome]] = {}
        # Batches that were not written yet, and None for one that was and is to be dropped: no more
        # than what is under way, whatever the router does.
        self._outgoing: dict[int, tuple[RetrieveBatchRequest, Deadline] | None] = {}
        self._has_news = asyncio.Event()
        self._last_moment: asyncio.TimerHandle | None = None
        self._writing = asyncio.create_task(self._write(), name="write-batches")
        self._reading = asyncio.create_task(self._read(), name="read-answers")

    async def ask(self, batch: RetrieveBatchRequest, deadline: Deadline) -> RetrieveBatchResponse:
        """The answer to a batch. Raises RangefinderError."""
        batch_id, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._waiting[batch_id] = answer
        self._outgoing[batch_id] = batch, deadline
        self._has_news.set()
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                outcome: Outcome = await answer
        except TimeoutError:
            raise DeadlineSpent("the router did not answer the batch in time") from None
        finally:
            self._forget(batch_id)
        if isinstance(outcome, RangefinderError):
            raise outcome
        return outcome

    def finish(self) -> None:
        """Take no more batches; the call ends when those under way are answered, or soon after."""
        if self.is_open:
            self.is_open = False
            self._has_news.set()
            self._last_moment = asyncio.get_running_loop().call_later(
                _FAREWELL_S_MAX, self._call.cancel
            )

    async def close(self, within_s: float) -> None:
        """End the call."""
        self.finish()
        await asyncio.wait((self._reading,), timeout=within_s)
        self._call.cancel()  # Where it is not over.
        await asyncio.wait((self._reading, self._writing))

    def _forget(self, batch_id: int) -> None:
        """A batch is answered, or nobody waits for it."""
        if self._waiting.pop(batch_id, None) is None:
            return
        if self._outgoing.pop(batch_id, None) is None and not self._reading.done():
            self._outgoing[batch_id] = None
            self._has_news.set()

    async def _write(self) -> None:
        try:
            while self._outgoing or self.is_open:
                while self._outgoing:
                    await self._call.write(self._next_message())
                self._has_news.clear()
                if self.is_open:
                    await self._has_news.wait()
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # The call is over: the reader says why.

    def _next_message(self) -> RetrieveStreamRequest:
        batch_id = next(iter(self._outgoing))
        content = self._outgoing.pop(batch_id)
        if content is None:
            return RetrieveStreamRequest(batch_id=batch_id, cancel=True)
        batch, deadline = content
        left_ms = min(max(int(deadline.remaining_s() * 1000), 1), _TIME_ALLOWED_MS_MAX)
        return RetrieveStreamRequest(batch_id=batch_id, batch=batch, time_allowed_ms=left_ms)

    async def _read(self) -> None:
        error: RangefinderError = ReplicaUnavailable("the router ended the stream")
        try:
            async for response in self._call:
                self._take(response)
            if not self.is_open:
                error = Draining("the router drains, and has not read the batch")
        except grpc.aio.AioRpcError as failure:
            error = _as_broken(error_of(failure))
        except asyncio.CancelledError:
            error = ReplicaUnavailable("the stream was closed")
        finally:
            self._end(error)

    def _take(self, response: RetrieveStreamResponse) -> None:
        if response.draining:
            self.finish()
            self._routers.record_absence(self.router)
            for batch_id in [each for each, content in self._outgoing.items() if content]:
                del self._outgoing[batch_id]
                self._settle(batch_id, Draining("the router drains: ask another"))
        else:
            self.has_answered = True
            self._settle(response.batch_id, _outcome_of(response))

    def _settle(self, batch_id: int, outcome: Outcome) -> None:
        answer = self._waiting.pop(batch_id, None)
        if answer is not None and not answer.done():  # Its caller may have given up just now.
            answer.set_result(outcome)

    def _end(self, error: RangefinderError) -> None:
        if self.is_open and isinstance(error, ABSENT):
            self._routers.record_absence(self.router)
        self.is_open = False
        if self._last_moment is not None:
            self._last_moment.cancel()
        self._connection.in_flight -= 1
        self._writing.cancel()
        for batch_id in list(self._waiting):
            self._settle(batch_id, error)
        self._on_end(self)


def _outcome_of(response: RetrieveStreamResponse) -> Outcome:
    if response.WhichOneof("outcome") == "batch":
        return response.batch
    failure = response.failure
    known = error_with_reason(failure.reason, failure.message, retry_after_ms=failure.retry_after_ms)
    return known or UnexpectedStatus(f"{failure.reason}: {failure.message}")


def _as_broken(error: RangefinderError) -> RangefinderError:
    """Whatever cut the stream off, a proxy's status too, says nothing about the batches on it."""
    if isinstance(error, UnexpectedStatus | DeadlineSpent):
        return ReplicaUnavailable(f"the stream broke: {error.message}")
    return error
