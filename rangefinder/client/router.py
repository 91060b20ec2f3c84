"""A router as a client sees it: its address, its standing, and connections to it.

A call is never cancelled, which would leak (pitfall of grpc.aio): a caller that gives up leaves its
call to run out, and each call has a deadline.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from rangefinder.client.standing import Standing
from rangefinder.deadline import Deadline
from rangefinder.edge.channel import open_channel
from rangefinder.edge.status import translated
from rangefinder.errors import ReplicaUnavailable
from rangefinder.v1.cluster_pb2_grpc import ClusterServiceStub
from rangefinder.v1.item_pb2_grpc import ItemServiceStub
from rangefinder.v1.recommendation_pb2_grpc import RecommendationServiceStub

if TYPE_CHECKING:  # These stand in the type stubs alone.
    from rangefinder.v1.cluster_pb2_grpc import ClusterServiceAsyncStub
    from rangefinder.v1.item_pb2_grpc import ItemServiceAsyncStub
    from rangefinder.v1.recommendation_pb2_grpc import RecommendationServiceAsyncStub

# Of one router: a connection ends at one of its workers, so that fewer would leave some idle.
CONNECTION_COUNT = 4

# grpc.health.v1 is two short messages: not worth one more package to install. The request asks for
# the service "readiness"; the answer has the state in field 1, and SERVING is 1.
_HEALTH = "/grpc.health.v1.Health/Check"
_IS_READY = b"\x0a\x09readiness"
_SERVING = b"\x08\x01"
_PROBE_S_MAX = 0.5


class Connection:
    """One HTTP/2 connection, made when it is first used."""

    def __init__(self, address: str) -> None:
        self.channel = open_channel(address)
        self.in_flight, self._is_closed = 0, False
        self.recommendations: RecommendationServiceAsyncStub = RecommendationServiceStub(self.channel)
        self.items: ItemServiceAsyncStub = ItemServiceStub(self.channel)
        self.clusters: ClusterServiceAsyncStub = ClusterServiceStub(self.channel)

    @property
    def is_broken(self) -> bool:
        """Whether it was lost, and could not be made again yet: a call would fail at once."""
        return self.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def ask(self, rpc: "Rpc", request: Any, deadline: Deadline) -> Any:
        """Raises RangefinderError."""
        call = rpc(self)(request, timeout=deadline.remaining_s())
        finished = asyncio.get_running_loop().create_future()
        self.in_flight += 1

        def finish(_: object) -> None:
            self.in_flight -= 1
            if not finished.done():  # The caller may have given up.
                finished.set_result(None)

        call.add_done_callback(finish)
        await finished
        if self._is_closed and call.cancelled():
            raise ReplicaUnavailable("the client was closed before the answer came")
        with translated():
            return await call

    async def close(self) -> None:
        self._is_closed = True
        await self.channel.close()

    async def is_ready(self) -> bool:
        """Whether requests should come here. A server that does not speak of its health is ready."""
        check: Any = self.channel.unary_unary(_HEALTH)
        try:
            answer: bytes = await check(_IS_READY, timeout=_PROBE_S_MAX)
        except grpc.aio.AioRpcError as failure:
            return failure.code() is grpc.StatusCode.UNIMPLEMENTED
        return answer == _SERVING


Rpc = Callable[[Connection], Any]  # Picks the method of a stub.


class Router:
    """One address."""

    def __init__(self, address: str) -> None:
        self.address, self.standing = address, Standing()
        self._connections: list[Connection] = []
        self._is_closed = False

    def connection(self) -> Connection:
        """The least busy connection; a new one where none is idle, and there may be more."""
        if self._is_closed:
            raise ReplicaUnavailable("the client is closed: make another")
        best = min(self._connections, key=lambda each: (each.is_broken, each.in_flight), default=None)
        is_idle = best is not None and not best.in_flight and not best.is_broken
        if best is None or (not is_idle and len(self._connections) < CONNECTION_COUNT):
            best = Connection(self.address)
            self._connections.append(best)
        return best

    async def close(self) -> None:
        self._is_closed = True
        for connection in self._connections:
            await connection.close()
