"""How a server of ours ends, and what its callers see of that."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from rangefinder.edge.admission import Admission
from rangefinder.edge.channel import ANSWER_BYTES_MAX, client_options, open_channel, server_options
from rangefinder.edge.obeyed import Obeyed
from rangefinder.edge.readiness import ReadinessProbe
from rangefinder.edge.server import Server
from rangefinder.edge.service import Call, Service, Unary
from rangefinder.edge.status import translated
from rangefinder.errors import Draining, ReplicaUnavailable
from rangefinder.telemetry.metrics import ProcessMetrics
from rangefinder.v1 import ranking_pb2
from rangefinder.v1.ranking_pb2_grpc import RankingServiceStub
from tests.kit.waiting import until

LONG_S, SOON_S = 30.0, 10.0


@dataclass(slots=True)
class Gated:
    """A server whose only RPC waits at a gate."""

    server: Server
    address: str
    gate: asyncio.Event
    begun: list[int] = field(default_factory=list)

    async def ask(self, channel: grpc.aio.Channel) -> None:
        with translated():
            await RankingServiceStub(channel).ListModels(
                ranking_pb2.ListModelsRequest(), timeout=LONG_S
            )


@asynccontextmanager
async def gated() -> AsyncIterator[Gated]:
    gate, begun, admission = asyncio.Event(), [], Admission(1_000)

    async def handle(request: Any, call: Call) -> ranking_pb2.ListModelsResponse:
        begun.append(1)
        await gate.wait()
        return ranking_pb2.ListModelsResponse()

    service = Service(
        ranking_pb2.DESCRIPTOR.services_by_name["RankingService"],
        {"ListModels": Unary(handle, Obeyed())},
        default_deadline_s=LONG_S,
        admission=admission,
        metrics=ProcessMetrics().rpc,
    )
    options = server_options(ANSWER_BYTES_MAX, ANSWER_BYTES_MAX)
    server = await Server.start("127.0.0.1:0", [service], admission, options)
    await server.set_ready(True)
    try:
        yield Gated(server, f"127.0.0.1:{server.port}", gate, begun)
    finally:
        await server.server.stop(None)


async def nobody_to_tell() -> None:
    """All calls are unary."""


async def test_what_is_under_way_is_answered_and_others_are_sent_elsewhere() -> None:
    """A call that was accepted before the drain is answered, one that comes later is refused at once
    as UNAVAILABLE, over its old connection and over a new one."""
    async with gated() as served, open_channel(served.address) as old:
        early = asyncio.create_task(served.ask(old))
        await until(lambda: bool(served.begun), within_s=SOON_S, what="the call has begun")
        drain = asyncio.create_task(served.server.drain(LONG_S, nobody_to_tell))
        await until(lambda: not is_listening(served), within_s=SOON_S, what="no one is let in")
        async with open_channel(served.address) as new:
            for channel in (new, old):
                with pytest.raises((ReplicaUnavailable, Draining)):
                    await asyncio.wait_for(served.ask(channel), SOON_S)
        assert not drain.done()
        served.gate.set()
        await early
        await asyncio.wait_for(drain, SOON_S)


def is_listening(served: Gated) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", served.server.port)) == 0


async def test_a_drain_is_announced() -> None:
    """For as long as it is announced, a server is not ready, and answers."""
    async with (
        gated() as served,
        open_channel(served.address) as channel,
        ReadinessProbe(served.address) as probe,
    ):
        served.gate.set()
        assert await probe.is_ready(SOON_S)
        drain = asyncio.create_task(served.server.drain(1.0, nobody_to_tell, announce_s=LONG_S))
        async with asyncio.timeout(SOON_S):
            while await probe.is_ready(SOON_S):
                await asyncio.sleep(0.01)
        await served.ask(channel)
        drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drain


async def test_who_watches_health_does_not_hold_up_a_drain() -> None:
    """An open Watch of grpc.health.v1 ends with the server, long before its grace."""
    async with gated() as served, open_channel(served.address) as channel:
        watch: Any = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(service="readiness"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await asyncio.wait_for(served.server.drain(LONG_S, nobody_to_tell), SOON_S)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watch.code() is grpc.StatusCode.UNAVAILABLE


async def test_calls_that_meet_the_end_are_refused_as_unavailable() -> None:
    """Under load, while a server drains, a call is answered or refused as UNAVAILABLE by one of our
    errors: what gRPC itself answers at that moment, CANCELLED, never comes out."""
    for _ in range(5):
        async with gated() as served:
            served.gate.set()
            async with asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(ask_until_refused(served), name=f"caller-{number}")
                await until(lambda: len(served.begun) > 50, within_s=SOON_S, what="calls")
                await served.server.drain(1.0, nobody_to_tell)


async def test_one_time_is_for_all_of_a_drain() -> None:
    """What goes by until those who are told have gone is not there for calls that still run."""
    grace_s = 1.0
    async with gated() as served, open_channel(served.address) as channel:
        call = asyncio.create_task(served.ask(channel))
        await until(lambda: bool(served.begun), within_s=SOON_S, what="the call has begun")
        began_s = time.monotonic()
        await served.server.drain(grace_s, lambda: asyncio.sleep(grace_s))
        assert time.monotonic() - began_s < 1.8 * grace_s
        with pytest.raises((ReplicaUnavailable, Draining)):
            await call


async def ask_until_refused(served: Gated) -> None:
    async with open_channel(served.address) as channel:
        with contextlib.suppress(ReplicaUnavailable, Draining):
            async with asyncio.timeout(SOON_S):
                while True:
                    await served.ask(channel)


async def test_pings_never_end_a_connection() -> None:
    """A client that pings every second, twenty times as often as ours, stays connected: gRPC's default
    ends such a connection after four."""
    eager = [
        (name, 200 if name == "grpc.keepalive_time_ms" else value)
        for name, value in client_options(ANSWER_BYTES_MAX)
    ]
    async with gated() as served, grpc.aio.insecure_channel(served.address, options=eager) as channel:
        call = asyncio.create_task(served.ask(channel))
        ended, _ = await asyncio.wait((call,), timeout=6.0)
        served.gate.set()
        await call
    assert ended == set()
