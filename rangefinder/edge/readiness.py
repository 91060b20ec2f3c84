"""Whether a server says that requests should come to it, by grpc.health.v1."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from rangefinder.edge.channel import open_channel

_CHECK = "/grpc.health.v1.Health/Check"


class ReadinessProbe:
    """Asks one server, over a channel that is kept until the block ends."""

    def __init__(self, address: str) -> None:
        self._channel = open_channel(address)
        self._check: Any = self._channel.unary_unary(
            _CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    async def __aenter__(self) -> "ReadinessProbe":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def is_ready(self, within_s: float) -> bool:
        """False, too, where nobody answers in time."""
        try:
            request = health_pb2.HealthCheckRequest(service="readiness")
            response = await self._check(request, timeout=within_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)
