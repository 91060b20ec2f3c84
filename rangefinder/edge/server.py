"""A gRPC server of ours: services, health, reflection, drain. Only this file knows those add-ons."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rangefinder.edge.admission import Admission
from rangefinder.edge.channel import Options
from rangefinder.edge.service import RefuseUnknown, Service
from rangefinder.errors import AddressInUse

_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVING = health_pb2.HealthCheckResponse.SERVING

# Of calls that were read, but whose handlers had not begun, when the last one ended.
_CUT_OFF_S = 0.2


class Probe(StrEnum):
    """Names that Kubernetes' gRPC probes ask for; the empty name is readiness too."""

    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"


@dataclass(slots=True)
class Server:
    """A started server."""

    server: grpc.aio.Server
    port: int
    admission: Admission
    health: health.aio.HealthServicer

    @classmethod
    async def start(
        cls, listen: str, services: Sequence[Service], admission: Admission, options: Options
    ) -> "Server":
        """Serve on host:port, alive but not ready. Raises AddressInUse."""
        server = grpc.aio.server(options=options)
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        server.add_generic_rpc_handlers([service.generic_handler() for service in services])
        names = [service.descriptor.full_name for service in services]
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )
        server.add_generic_rpc_handlers([RefuseUnknown()])
        try:
            port = server.add_insecure_port(listen)
        except RuntimeError:
            raise AddressInUse(f"{listen}: the port is in use, or is not this machine's") from None
        await server.start()
        started = cls(server, port, admission, servicer)
        for probe in (*Probe, ""):
            await servicer.set(probe, _NOT_SERVING)
        await servicer.set(Probe.LIVENESS, _SERVING)
        return started

    async def set_ready(self, ready: bool) -> None:
        """Tell probes whether requests should come here; ready once means started for good."""
        state = _SERVING if ready else _NOT_SERVING
        await self.health.set(Probe.READINESS, state)
        await self.health.set("", state)
        if ready:
            await self.health.set(Probe.STARTUP, state)

    async def drain(
        self,
        grace_s: float,
        say_goodbye: Callable[[], Awaitable[None]],
        *,
        announce_s: float = 0.0,
    ) -> None:
        """Stop being ready, serve on for announce_s, send callers elsewhere, and stop.

        Connections are told to end (GOAWAY) and none is accepted any more; calls under way end by
        themselves for at most grace_s, of which say_goodbye may take some.
        """
        await self.set_ready(False)
        await asyncio.sleep(announce_s)
        ends_at_s = time.monotonic() + grace_s
        await say_goodbye()
        left_s = max(ends_at_s - time.monotonic(), 0.0)
        goodbye = asyncio.create_task(self.server.stop(left_s), name="goodbye")
        try:
            async with asyncio.timeout(left_s):
                await self.admission.wait_idle()
        except TimeoutError:
            pass  # What is left is cut off: it had its time.
        # Not every call is one of ours: who watches our health would stay for all of grace_s.
        await self.server.stop(_CUT_OFF_S)
        await goodbye
