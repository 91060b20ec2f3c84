"""The process of a node: load, serve, drain."""

import asyncio
from functools import partial

from rangefinder.edge.admission import Admission
from rangefinder.edge.channel import INTERNAL_BYTES_MAX, server_options
from rangefinder.edge.server import Server
from rangefinder.edge.service import Service
from rangefinder.internal.v1 import node_pb2
from rangefinder.map_file import read_map
from rangefinder.process import until_stopped
from rangefinder.release import read_manifest
from rangefinder.telemetry.logs import get_log
from rangefinder.telemetry.metrics import ProcessMetrics
from rangefinder.telemetry.process import memory
from shard_server.config import NodeConfig
from shard_server.node import Node, placement_of
from shard_server.search_connections import SearchConnections
from shard_server.service import NodeService

# Calls of router workers beside their searches.
_CALLS_MAX = 1_000
_DEFAULT_DEADLINE_S = 5.0


async def serve(config: NodeConfig, has_lifeline: bool) -> None:
    """Run a node until it is asked to end. Raises what keeps it from starting."""
    log, metrics = get_log(), ProcessMetrics()
    placement = placement_of(config.name, read_map(config.map_file), read_manifest(config.release))
    node = Node(placement, config.release, config.search_threads)
    searches = SearchConnections(node, config.searches_in_flight_max, metrics.rpc)
    await searches.listen(config.listen.rsplit(":", 1)[0], config.search_port)
    service = NodeService(node, searches.port)
    _add_gauges(metrics, node, searches)
    admission = Admission(_CALLS_MAX)
    grpc_service = Service(
        node_pb2.DESCRIPTOR.services_by_name["NodeService"],
        service.handlers(),
        default_deadline_s=_DEFAULT_DEADLINE_S,
        admission=admission,
        metrics=metrics.rpc,
    )
    options = server_options(INTERNAL_BYTES_MAX, INTERNAL_BYTES_MAX)
    server = await Server.start(config.listen, [grpc_service], admission, options)
    metrics.serve(config.metrics)
    log.info("node_started", port=server.port, search_port=searches.port, shards=list(node.replicas))
    stopped = asyncio.create_task(until_stopped(lifeline=has_lifeline), name="until-stopped")
    await _load_unless_stopped(node, server, stopped)
    await stopped
    log.info("node_draining")
    node.drain()
    await server.drain(config.drain_s, partial(searches.drain, config.drain_s))
    node.close()


async def _load_unless_stopped(node: Node, server: Server, stopped: "asyncio.Task[None]") -> None:
    loading = asyncio.create_task(node.load(), name="load")
    await asyncio.wait((loading, stopped), return_when=asyncio.FIRST_COMPLETED)
    if loading.done():
        loading.result()
        await server.set_ready(True)
        held = memory()
        get_log().info("node_ready", resident_bytes=held.resident, private_bytes=held.private)


def _add_gauges(metrics: ProcessMetrics, node: Node, searches: SearchConnections) -> None:
    metrics.gauge("searches_running", "Searches that a router waits for.", lambda: searches.in_flight)
    metrics.gauge("work_waiting", "Pieces of work that wait for a thread.", lambda: node.waiting_count)
    metrics.gauge(
        "exact_fallbacks",
        "Searches that an index could not answer, so that they were made exactly, since the start.",
        lambda: sum(shard.fallback_count for shard in node.shards_ready()),
    )
    metrics.gauge(
        "replicas_ready",
        "Replicas on this node that may answer.",
        lambda: len(node.shards_ready()),
    )
