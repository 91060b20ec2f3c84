"""The process of a router: links to every node, the public services, drain."""

import asyncio
import time
from collections.abc import Mapping

from rangefinder.cluster_map import ClusterMap
from rangefinder.edge.admission import Admission
from rangefinder.edge.channel import ANSWER_BYTES_MAX, REQUEST_BYTES_MAX, server_options
from rangefinder.edge.server import Server
from rangefinder.edge.service import Handler, Service
from rangefinder.map_file import read_map
from rangefinder.process import until_stopped
from rangefinder.telemetry.logs import get_log
from rangefinder.telemetry.metrics import ProcessMetrics
from rangefinder.v1 import cluster_pb2, item_pb2, recommendation_pb2
from router.cluster import ClusterService
from router.config import RouterConfig
from router.gatherer import Gatherer
from router.items import ItemService
from router.node_link import NodeLink
from router.retrieval import RetrievalService

_READY_POLL_S = 0.02
_PATIENCE_S = 5.0


async def serve(config: RouterConfig, has_lifeline: bool) -> None:
    """Run a router until it is asked to end. Raises what keeps it from starting."""
    log, metrics = get_log(), ProcessMetrics()
    cluster_map = read_map(config.map_file)
    links = {node.name: NodeLink(node.name, node.address) for node in cluster_map.nodes}
    gatherer = Gatherer(cluster_map, links, config.batch_rows_max)
    retrieval = RetrievalService(cluster_map, gatherer, config.batch_rows_max, metrics)
    admission = Admission(config.requests_in_flight_max)
    services = _services(config, cluster_map, links, retrieval, admission, metrics)
    options = server_options(REQUEST_BYTES_MAX, ANSWER_BYTES_MAX)
    server = await Server.start(config.listen, services, admission, options)
    metrics.serve(config.metrics)
    metrics.gauge("nodes_usable", "Nodes that searches are sent to.", lambda: _usable_count(links))
    metrics.gauge(
        "queries_waiting", "Queries that wait for their batch.", lambda: gatherer.waiting_rows
    )
    log.info("router_started", port=server.port, map_epoch=cluster_map.epoch, nodes=list(links))
    tasks = [asyncio.create_task(link.run(), name=f"link-{name}") for name, link in links.items()]
    tasks += [asyncio.create_task(link.watch(), name=f"watch-{name}") for name, link in links.items()]
    tasks.append(asyncio.create_task(_become_ready(server, cluster_map, links), name="become-ready"))
    await until_stopped(lifeline=has_lifeline)
    log.info("router_draining")
    await server.drain(config.drain_s, retrieval.streams.drain)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _services(
    config: RouterConfig,
    cluster_map: ClusterMap,
    links: Mapping[str, NodeLink],
    retrieval: RetrievalService,
    admission: Admission,
    metrics: ProcessMetrics,
) -> list[Service]:
    default_s = config.default_deadline_ms / 1000
    handlers: dict[str, dict[str, Handler]] = {
        "RecommendationService": retrieval.handlers(default_s),
        "ItemService": ItemService(cluster_map, links).handlers(),
        "UserService": {},
        "ClusterService": ClusterService(cluster_map, links).handlers(),
    }
    described = {
        service.name: service
        for file in (recommendation_pb2, item_pb2, cluster_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
    }
    return [
        Service(
            described[name],
            methods,
            default_deadline_s=default_s,
            admission=admission,
            metrics=metrics.rpc,
        )
        for name, methods in handlers.items()
    ]


async def _become_ready(server: Server, cluster_map: ClusterMap, links: Mapping[str, NodeLink]) -> None:
    """Ready once every range can be searched; after a while, once any can: part beats nothing."""
    patience_ends_s = time.monotonic() + _PATIENCE_S
    while not _is_worth_asking(cluster_map, links, time.monotonic() >= patience_ends_s):
        await asyncio.sleep(_READY_POLL_S)
    await server.set_ready(True)
    get_log().info("router_ready", nodes_usable=_usable_count(links))


def _is_worth_asking(
    cluster_map: ClusterMap, links: Mapping[str, NodeLink], is_patience_over: bool
) -> bool:
    searchable = [
        any(links[replica.node].is_usable for replica in shard.replicas)
        for shard in cluster_map.serving_shards
    ]
    return any(searchable) if is_patience_over else all(searchable)


def _usable_count(links: Mapping[str, NodeLink]) -> int:
    return sum(link.is_usable for link in links.values())
