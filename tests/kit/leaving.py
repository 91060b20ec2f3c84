"""Callers that are cancelled, or whose time is over, in every moment of a call."""

import asyncio
import random
from collections import Counter
from typing import Any

import grpc

from rangefinder import Client, RangefinderError
from rangefinder.answers import RetrievedBatch
from rangefinder.client import RetrieveStream
from rangefinder.v1.recommendation_pb2 import RetrieveRequest
from rangefinder.v1.types_pb2 import Vector
from tests.kit.small_release import SmallRelease

LANES = 20  # Of calls, and of batches of a stream.

# A router keeps some bytes of each call that is cancelled, and so does a server of gRPC that does
# nothing else: a million would be seen. Beyond these, batches are cancelled, by a message.
CANCELLED_CALLS_MAX = 50_000
METHOD = "/rangefinder.v1.RecommendationService/Retrieve"


class Leaving:
    """Callers that leave, until as many calls as wanted were cancelled, and as many have expired."""

    def __init__(self, release: SmallRelease, count: int, seed: int) -> None:
        self.ends: Counter[str] = Counter()  # By status.
        self._cancelled_calls = 0
        self._count, self._chance, self._queries = count, random.Random(seed), release.queries
        self._requests = [
            RetrieveRequest(
                query=Vector(values=query.tolist()), item_count=10, exact=exact
            ).SerializeToString()
            for query in release.queries
            for exact in (False, True)
        ]

    @property
    def is_over(self) -> bool:
        return min(self.ends["CANCELLED"], self.ends["DEADLINE_EXCEEDED"]) >= self._count

    def _is_to_cancel(self) -> bool:
        """What is still missing more of."""
        return self.ends["CANCELLED"] <= self.ends["DEADLINE_EXCEEDED"]

    async def call_often(self, channel: grpc.aio.Channel) -> None:
        """Calls that are cancelled within 10 ms, or have 1 to 40 ms."""
        method: Any = channel.unary_unary(METHOD)
        chance = self._chance
        while not self.is_over:
            cancels = self._is_to_cancel() and self._cancelled_calls < CANCELLED_CALLS_MAX
            allowed_s = 1.0 if cancels else chance.uniform(0.001, 0.04)
            call = method(chance.choice(self._requests), timeout=allowed_s)
            waiting = asyncio.ensure_future(call.code())
            if cancels:
                self._cancelled_calls += 1
                await asyncio.wait((waiting,), timeout=chance.uniform(0.0, 0.01))
                call.cancel()
            self.ends[(await waiting).name] += 1

    async def stream_often(self, stream: RetrieveStream) -> None:
        """The same with batches of a stream."""
        chance = self._chance
        while not self.is_over:
            cancels = self._is_to_cancel()
            allowed_s = 1.0 if cancels else chance.uniform(0.001, 0.04)
            asking = asyncio.ensure_future(
                stream.retrieve_batch(self._queries, 10, exact=True, deadline_s=allowed_s)
            )
            if cancels:
                await asyncio.wait((asking,), timeout=chance.uniform(0.0, 0.01))
                asking.cancel()
            await asyncio.wait((asking,))
            self.ends[status_of(asking)] += 1


def status_of(asking: "asyncio.Future[RetrievedBatch]") -> str:
    """How a batch ended, as a status of gRPC."""
    if asking.cancelled():
        return "CANCELLED"
    error = asking.exception()
    if error is None:
        return "OK"
    assert isinstance(error, RangefinderError), error
    return error.status


async def leave_often(address: str, release: SmallRelease, count: int, seed: int) -> Counter[str]:
    """Have `count` calls cancelled and as many expire; returns how calls ended."""
    leaving = Leaving(release, count, seed)
    async with (
        grpc.aio.insecure_channel(address) as channel,
        Client(address) as client,
        client.stream() as stream,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(LANES):
            group.create_task(leaving.call_often(channel), name="call-often")
            group.create_task(leaving.stream_often(stream), name="stream-often")
    return leaving.ends
