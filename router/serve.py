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
from router.ranker_link import RankerLink
from router.rankers import Rankers
from router.recommendation import RecommendationService
from router.retrieval import RetrievalService
from router.tables import open_tables

_READY_POLL_S = 0.02
_PATIENCE_S = 5.0


async def serve(config: RouterConfig, has_lifeline: bool) -> None:
    """Run a router until it is asked to end. Raises what keeps it from starting."""
    log, metrics = get_log(), ProcessMetrics()
    cluster_map = read_map(config.map_file)
    tables = open_tables(config.release, cluster_map)
    links = {node.name: NodeLink(node.name, node.address) for node in cluster_map.nodes}
    rankers = Rankers([RankerLink(address, cluster_map.id_kind) for address in config.rankers])
    gatherer = Gatherer(cluster_map, links, config.batch_rows_max)
    retrieval = RetrievalService(cluster_map, gatherer, config.batch_rows_max, metrics)
    items = ItemService(cluster_map, links)
    recommendation = RecommendationService(
        cluster_map,
        gatherer,
        items,
        rankers,
        tables,
        config.pipelines,
        retrieval.count_missed,
        metrics,
    )
    handlers: dict[str, dict[str, Handler]] = {
        "RecommendationService": {
            **retrieval.handlers(config.default_deadline_ms / 1000),
            **recommendation.handlers(),
        },
        "ItemService": items.handlers(),
        "UserService": {},
        "ClusterService": ClusterService(cluster_map, links).handlers(),
    }
    server = await _start(config, handlers, metrics)
    metrics.serve(config.metrics)
    _add_gauges(metrics, links, gatherer, rankers)
    log.info("router_started", port=server.port, map_epoch=cluster_map.epoch, nodes=list(links))
    tasks = _watching(links, rankers)
    tasks.append(asyncio.create_task(_become_ready(server, cluster_map, links), name="become-ready"))
    await until_stopped(lifeline=has_lifeline)
    log.info("router_draining")
    await server.drain(config.drain_s, retrieval.streams.drain)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    recommendation.close()


def _watching(links: Mapping[str, NodeLink], rankers: Rankers) -> "list[asyncio.Task[None]]":
    """Tasks that keep the connections to nodes and rankers."""
    return [
        *(asyncio.create_task(link.run(), name=f"link-{name}") for name, link in links.items()),
        *(asyncio.create_task(link.watch(), name=f"watch-{name}") for name, link in links.items()),
        *(
            asyncio.create_task(link.watch(), name=f"watch-{address}")
            for address, link in rankers.links.items()
        ),
    ]


def _add_gauges(
    metrics: ProcessMetrics, links: Mapping[str, NodeLink], gatherer: Gatherer, rankers: Rankers
) -> None:
    metrics.gauge("nodes_usable", "Nodes that searches are sent to.", lambda: _usable_count(links))
    metrics.gauge(
        "queries_waiting", "Queries that wait for their batch.", lambda: gatherer.waiting_rows
    )
    metrics.gauge(
        "rankers_usable", "Rankers that candidates are sent to.", lambda: rankers.usable_count
    )


async def _start(
    config: RouterConfig, handlers: Mapping[str, Mapping[str, Handler]], metrics: ProcessMetrics
) -> Server:
    """Serve all public services, those without handlers too."""
    admission = Admission(config.requests_in_flight_max)
    described = {
        service.name: service
        for file in (recommendation_pb2, item_pb2, cluster_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
    }
    services = [
        Service(
            described[name],
            methods,
            default_deadline_s=config.default_deadline_ms / 1000,
            admission=admission,
            metrics=metrics.rpc,
        )
        for name, methods in handlers.items()
    ]
    options = server_options(REQUEST_BYTES_MAX, ANSWER_BYTES_MAX)
    return await Server.start(config.listen, services, admission, options)


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
