"""Calls of a load generator: requests are bytes that were prepared once, answers are looked at briefly.

Of an answer only the share of the catalogue that it covers is taken: making columns and values of it is
the work of a client, and would be measured as if it were the cluster's.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rangefinder.cli.bench.echo import METHOD as ECHO_METHOD
from rangefinder.cli.bench.lists import Mode
from rangefinder.edge.channel import open_channel
from rangefinder.edge.columns import vector_of
from rangefinder.edge.status import translated
from rangefinder.edge.wire import block_message
from rangefinder.errors import DeadlineSpent, RangefinderError, ReplicaUnavailable
from rangefinder.v1.recommendation_pb2 import (
    RetrieveBatchRequest,
    RetrieveBatchResponse,
    RetrieveRequest,
    RetrieveResponse,
    RetrieveStreamRequest,
    RetrieveStreamResponse,
)
from rangefinder.v1.types_pb2 import Certificate
from shard_server.scoring import Rows

_SERVICE = "/rangefinder.v1.RecommendationService"

# A batch on a stream is answered in its time; what was not by then is given up.
_BACKSTOP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked, and how."""

    address: str
    mode: Mode
    queries: Rows
    queries_per_message: int
    item_count: int
    width: int
    deadline_s: float
    connections: int = 1  # Several spread over the routers that share an address.


class Caller(Protocol):
    """Sends one of the prepared requests at a time; any number may be under way."""

    async def call(self, number: int) -> float:
        """The share of the catalogue that the answer covers. Raises RangefinderError."""


class _InTurn:
    """Several callers, each with every so manieth request."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self._callers = callers

    async def call(self, number: int) -> float:
        return await self._callers[number % len(self._callers)].call(number)


@asynccontextmanager
async def connected(asked: Asked, ready_within_s: float) -> AsyncIterator[Caller]:
    """A caller with connections of its own. Raises ReplicaUnavailable where nobody answers."""
    async with AsyncExitStack() as connections:
        yield _InTurn(
            [
                await connections.enter_async_context(_connection(asked, ready_within_s))
                for _ in range(asked.connections)
            ]
        )


@asynccontextmanager
async def _connection(asked: Asked, ready_within_s: float) -> AsyncIterator[Caller]:
    async with open_channel(asked.address) as channel:
        try:
            async with asyncio.timeout(ready_within_s):
                await channel.channel_ready()
        except TimeoutError:
            raise ReplicaUnavailable(f"{asked.address} does not answer") from None
        if asked.mode is Mode.STREAM:
            async with _Stream.opened(channel, asked) as stream:
                yield stream
        else:
            yield _Unary(channel, asked)


class _Unary:
    """A call for each request: an empty one, one query, or many."""

    def __init__(self, channel: Any, asked: Asked) -> None:
        self._deadline_s = asked.deadline_s
        self._requests: Sequence[bytes] = [b""]
        self._parse: Any = None
        match asked.mode:
            case Mode.ECHO:
                path = ECHO_METHOD
            case Mode.UNARY:
                path, self._parse = f"{_SERVICE}/Retrieve", RetrieveResponse.FromString
                self._requests = unary_requests(asked)
            case _:
                path, self._parse = f"{_SERVICE}/RetrieveBatch", RetrieveBatchResponse.FromString
                self._requests = [each.SerializeToString() for each in _batches(asked)]
        self._method = channel.unary_unary(path)

    async def call(self, number: int) -> float:
        with translated():
            answer = await self._method(
                self._requests[number % len(self._requests)], timeout=self._deadline_s
            )
        return coverage_of(self._parse(answer).certificate) if self._parse else 1.0


class _Stream:
    """One RetrieveStream; a message for each request."""

    def __init__(self, call: Any, asked: Asked) -> None:
        self._call, self._deadline_s = call, asked.deadline_s
        self._requests = [
            RetrieveStreamRequest(
                batch=batch, time_allowed_ms=int(asked.deadline_s * 1000)
            ).SerializeToString()
            for batch in _batches(asked)
        ]
        self._writing = asyncio.Lock()  # gRPC takes one message at a time.
        self._waiting: dict[int, asyncio.Future[RetrieveStreamResponse]] = {}
        self._last_id = 0
        self._is_open = True

    @classmethod
    @asynccontextmanager
    async def opened(cls, channel: Any, asked: Asked) -> "AsyncIterator[_Stream]":
        stream = cls(channel.stream_stream(f"{_SERVICE}/RetrieveStream")(), asked)
        reading = asyncio.create_task(stream._read(), name="read-answers")
        try:
            yield stream
        finally:
            with contextlib.suppress(Exception):  # It may have ended by itself.
                await stream._call.done_writing()
            async with asyncio.timeout(asked.deadline_s + _BACKSTOP_S):
                await reading

    async def call(self, number: int) -> float:
        if not self._is_open:
            raise ReplicaUnavailable("the stream has ended")
        self._last_id += 1
        batch_id = self._last_id
        answer = self._waiting[batch_id] = asyncio.get_running_loop().create_future()
        # Fields of a message may come in any order: the id before what was prepared.
        head = RetrieveStreamRequest(batch_id=batch_id).SerializeToString()
        try:
            with translated():
                async with self._writing:
                    await self._call.write(head + self._requests[number % len(self._requests)])
            response = await asyncio.wait_for(answer, self._deadline_s + _BACKSTOP_S)
        except TimeoutError:
            raise DeadlineSpent("no answer on the stream") from None
        except asyncio.InvalidStateError:
            raise ReplicaUnavailable("the stream has ended") from None
        finally:
            self._waiting.pop(batch_id, None)
        if response.WhichOneof("outcome") == "failure":
            failed = response.failure
            raise RangefinderError.by_reason.get(failed.reason, ReplicaUnavailable)(failed.message)
        return coverage_of(response.batch.certificate)

    async def _read(self) -> None:
        """Hand answers to those who wait, until the stream ends."""
        try:
            with translated():
                while content := await self._call.read():
                    response = RetrieveStreamResponse.FromString(content)
                    waiting = self._waiting.get(response.batch_id)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(response)
        except RangefinderError:
            pass  # Those who wait are told that it has ended, however it did.
        finally:
            self._is_open = False
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ReplicaUnavailable("the stream has ended"))


def unary_requests(asked: Asked) -> list[bytes]:
    """A RetrieveRequest for each query."""
    return [
        RetrieveRequest(
            query=vector_of(query), item_count=asked.item_count, search_width=asked.width
        ).SerializeToString()
        for query in asked.queries
    ]


def _batches(asked: Asked) -> list[RetrieveBatchRequest]:
    """Every query in one of the batches; the last one is filled from the beginning."""
    size = asked.queries_per_message
    starts = range(0, len(asked.queries), size)
    return [
        RetrieveBatchRequest(
            queries=block_message(np.take(asked.queries, range(start, start + size), 0, mode="wrap")),
            item_count=asked.item_count,
            search_width=asked.width,
        )
        for start in starts
    ]


def coverage_of(certificate: Certificate) -> float:
    """The share of the items that was searched."""
    if not certificate.missed_ranges:
        return 1.0
    return float(certificate.item_count_searched / max(certificate.item_count, 1))
