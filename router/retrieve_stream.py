"""RetrieveStream: batches over one long-lived call, answered as they are ready.

A batch that fails does not end the stream. Of the batches of a stream at most 64 are under way; then
it is not read, and gRPC's flow control holds the caller. Who waits is told at its own deadline.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rangefinder.deadline import Deadline
from rangefinder.edge.admission import CallLine
from rangefinder.edge.obeyed import refuse_unsupported
from rangefinder.edge.service import DEADLINE_S_MAX, Stream
from rangefinder.edge.status import code_of
from rangefinder.errors import (
    DeadlineSpent,
    Draining,
    Internal,
    InvalidRequest,
    Overloaded,
    RangefinderError,
)
from rangefinder.internal.v1.packed_pb2 import (
    PackedBatchFailure,
    PackedRetrieveBatchResponse,
    PackedRetrieveStreamResponse,
)
from rangefinder.telemetry.logs import get_log
from rangefinder.v1 import recommendation_pb2 as public
from router.requests import OBEYED_BATCH, OBEYED_CANCEL, OBEYED_STREAM

BATCHES_IN_FLIGHT_MAX = 64

RunBatch = Callable[[public.RetrieveBatchRequest, Deadline], Awaitable[PackedRetrieveBatchResponse]]
PublicStream = Stream[public.RetrieveStreamRequest]


@dataclass(slots=True)
class _InFlight:
    """The batches of one stream."""

    permits: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(BATCHES_IN_FLIGHT_MAX))
    tasks: "dict[int, asyncio.Task[None]]" = field(default_factory=dict)  # By id of the batch.


class RetrieveStreams:
    """All streams of this router."""

    def __init__(self, run_batch: RunBatch, line: CallLine) -> None:
        """line: where batches wait for their turn, among calls."""
        self._run_batch, self._line = run_batch, line
        self.default_time_s = 0.2
        self._draining = asyncio.Event()
        self._log = get_log()

    async def drain(self) -> None:
        """Tell every stream to go elsewhere; what was read is still answered."""
        self._draining.set()

    async def serve(self, stream: PublicStream) -> None:
        """Answer one stream until its caller ends it, or this router drains."""
        in_flight = _InFlight()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(stream, in_flight, group), name="read-batches")
            draining = group.create_task(self._draining.wait(), name="draining")
            await asyncio.wait((reading, draining), return_when=asyncio.FIRST_COMPLETED)
            draining.cancel()
            if not reading.done():
                reading.cancel()
                await stream.write(PackedRetrieveStreamResponse(draining=True))

    async def _read(self, stream: PublicStream, in_flight: _InFlight, group: asyncio.TaskGroup) -> None:
        async for request in stream:
            if request.cancel:
                await _cancel(in_flight, request.batch_id)
                await _refuse_more_than_cancel(stream, request)
                continue
            allowed_s = request.time_allowed_ms / 1000 or self.default_time_s
            deadline = Deadline.after(min(allowed_s, DEADLINE_S_MAX), time.monotonic)
            try:
                await _enter(in_flight, deadline)
            except DeadlineSpent as error:
                await stream.write(_failed(request.batch_id, error))
                continue
            except asyncio.CancelledError:  # What was read is answered, be it with this.
                draining = Draining("this router is draining: ask another")
                await stream.write(_failed(request.batch_id, draining))
                raise
            is_new = request.batch_id not in in_flight.tasks
            work = self._answer_new if is_new else self._refuse_repeated
            task = group.create_task(
                work(stream, in_flight, request, deadline), name=f"batch-{request.batch_id}"
            )
            in_flight.tasks.setdefault(request.batch_id, task)

    async def _answer_new(
        self,
        stream: PublicStream,
        in_flight: _InFlight,
        request: public.RetrieveStreamRequest,
        deadline: Deadline,
    ) -> None:
        try:
            try:
                response = await self._response(request, deadline)
            finally:
                # Before the answer leaves: whoever has it may use the id again at once.
                del in_flight.tasks[request.batch_id]
            await stream.write(response)
        finally:
            in_flight.permits.release()

    async def _refuse_repeated(
        self,
        stream: PublicStream,
        in_flight: _InFlight,
        request: public.RetrieveStreamRequest,
        deadline: Deadline,
    ) -> None:
        del deadline
        try:
            why = f"{request.batch_id} is in flight on this stream already"
            await stream.write(_failed(request.batch_id, InvalidRequest("batch_id", why)))
        finally:
            in_flight.permits.release()

    async def _response(
        self, request: public.RetrieveStreamRequest, deadline: Deadline
    ) -> PackedRetrieveStreamResponse:
        """The answer to one batch, or why there is none."""
        try:
            _require_valid(request)
            batch = await self._run_in_turn(request.batch, deadline)
            return PackedRetrieveStreamResponse(batch_id=request.batch_id, batch=batch)
        except RangefinderError as error:
            return _failed(request.batch_id, error)
        except Exception:
            self._log.exception("batch_failed")
            return _failed(request.batch_id, Internal("a bug of the server: its log has the details"))

    async def _run_in_turn(
        self, batch: public.RetrieveBatchRequest, deadline: Deadline
    ) -> PackedRetrieveBatchResponse:
        arrived_s = time.monotonic()
        await self._line.enter(arrived_s, deadline.ends_at_s)
        try:
            return await self._run_batch(batch, deadline)
        finally:
            self._line.leave(arrived_s, deadline.ends_at_s)


async def _enter(in_flight: _InFlight, deadline: Deadline) -> None:
    """Take one of the places of a stream. Raises DeadlineSpent where none was free in time."""
    if not in_flight.permits.locked():
        await in_flight.permits.acquire()
        return
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            await in_flight.permits.acquire()
    except TimeoutError:
        why = f"the time was up while {BATCHES_IN_FLIGHT_MAX} batches of the stream were under way"
        raise DeadlineSpent(why) from None


async def _cancel(in_flight: _InFlight, batch_id: int) -> None:
    """Stop the work of a batch, if it is not answered yet; its nodes are told."""
    await asyncio.sleep(0)  # It has begun by then: what never began would keep its place.
    if task := in_flight.tasks.get(batch_id):
        task.cancel()


async def _refuse_more_than_cancel(stream: PublicStream, request: public.RetrieveStreamRequest) -> None:
    """A cancel says nothing but which batch; what else it sets would be ignored."""
    try:
        refuse_unsupported(request, OBEYED_CANCEL)
    except RangefinderError as error:
        await stream.write(_failed(request.batch_id, error))


def _require_valid(request: public.RetrieveStreamRequest) -> None:
    refuse_unsupported(request, OBEYED_STREAM)
    if request.batch_id == 0:
        raise InvalidRequest("batch_id", "must not be 0")
    if request.time_allowed_ms < 0:
        raise InvalidRequest("time_allowed_ms", f"{request.time_allowed_ms} is negative")
    if request.WhichOneof("message") != "batch":
        raise InvalidRequest("message", "set batch, or cancel = true")
    refuse_unsupported(request.batch, OBEYED_BATCH)


def _failed(batch_id: int, error: RangefinderError) -> PackedRetrieveStreamResponse:
    failure = PackedBatchFailure(reason=error.reason, message=error.message, code=code_of(error))
    if isinstance(error, Overloaded):
        failure.retry_after_ms = error.retry_after_ms
    return PackedRetrieveStreamResponse(batch_id=batch_id, failure=failure)
