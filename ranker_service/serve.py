"""The process of a ranking service: load, warm up, serve, drain."""

import asyncio

from rangefinder.edge.admission import Admission
from rangefinder.edge.channel import ANSWER_BYTES_MAX, REQUEST_BYTES_MAX, server_options
from rangefinder.edge.server import Server
from rangefinder.edge.service import Service
from rangefinder.process import until_stopped
from rangefinder.release import read_manifest
from rangefinder.telemetry.logs import get_log
from rangefinder.telemetry.metrics import ProcessMetrics
from rangefinder.v1 import ranking_pb2
from ranker_service.config import RankerConfig
from ranker_service.service import RankingService

# Of a caller that set none: ranking takes milliseconds, and a user waits.
_DEFAULT_DEADLINE_S = 0.2


async def serve(config: RankerConfig, has_lifeline: bool) -> None:
    """Run a ranking service until it is asked to end. Raises what keeps it from starting."""
    log, metrics = get_log(), ProcessMetrics()
    manifest = read_manifest(config.release)
    service = RankingService(config.release, manifest, config.scoring_threads, metrics)
    admission = Admission(config.requests_in_flight_max)
    grpc_service = Service(
        ranking_pb2.DESCRIPTOR.services_by_name["RankingService"],
        service.handlers(),
        default_deadline_s=_DEFAULT_DEADLINE_S,
        admission=admission,
        metrics=metrics.rpc,
    )
    options = server_options(REQUEST_BYTES_MAX, ANSWER_BYTES_MAX)
    server = await Server.start(config.listen, [grpc_service], admission, options)
    metrics.serve(config.metrics)
    log.info("ranker_started", port=server.port, release=manifest.name)
    stopped = asyncio.create_task(until_stopped(lifeline=has_lifeline), name="until-stopped")
    await _load_unless_stopped(service, server, stopped)
    await stopped
    log.info("ranker_draining")
    await server.drain(config.drain_s, _nobody_to_tell, announce_s=config.drain_announce_s)
    service.close()


async def _load_unless_stopped(
    service: RankingService, server: Server, stopped: "asyncio.Task[None]"
) -> None:
    loading = asyncio.create_task(service.load(), name="load")
    await asyncio.wait((loading, stopped), return_when=asyncio.FIRST_COMPLETED)
    if loading.done():
        loading.result()
        await server.set_ready(True)
        get_log().info("ranker_ready")


async def _nobody_to_tell() -> None:
    """Calls are unary: readiness says it all."""
