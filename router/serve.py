"""The process of a router, or one of its workers: links to every node, the public services, drain."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from rangefinder.cluster_map import ClusterMap
from rangefinder.concurrency_limit import ConcurrencyLimit
from rangefinder.edge.admission import Admission, CallLine
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

# A batch of them costs little more than one.
_CALLS_RUNNING_MIN = 32

# Of a worker: who started it gathers them from there.
_WORKER_METRICS = "127.0.0.1:0"

Tell = Callable[[str], None]


async def serve(config: RouterConfig, has_lifeline: bool, tell: Tell | None = None) -> None:
    """Run a router until it is asked to end. Raises what keeps it from starting.

    A worker, which has somebody to `tell`, shares its port, and listens only from when it is ready.
    """
    log, metrics = get_log(), ProcessMetrics()
    cluster_map = read_map(config.map_file)
    links = {node.name: NodeLink(node.name, node.address) for node in cluster_map.nodes}
    rankers = Rankers([RankerLink(address, cluster_map.id_kind) for address in config.rankers])
    gatherer = Gatherer(cluster_map, links, config.batch_rows_max)
    line = _line(config)
    retrieval = RetrievalService(cluster_map, gatherer, config.batch_rows_max, line, metrics)
    items = ItemService(cluster_map, links)
    recommendation = RecommendationService(
        cluster_map,
        gatherer,
        items,
        rankers,
        open_tables(config.release, cluster_map),
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
    _add_gauges(metrics, links, gatherer, rankers, line)
    _serve_metrics(config, metrics, tell)
    worth = asyncio.create_task(_until_worth_asking(cluster_map, links), name="until-worth-asking")
    tasks = [worth, *_watching(links, rankers)]
    log.info("router_started", map_epoch=cluster_map.epoch, nodes=list(links))
    start = partial(_start, config, handlers, line, metrics, shares_port=tell is not None)
    server = await _serve_until_stopped(start, worth, has_lifeline, tell)
    log.info("router_draining")
    if server is not None:
        announce_s = config.drain_announce_s
        await server.drain(config.drain_s, retrieval.streams.drain, announce_s=announce_s)
    await _end(tasks)
    recommendation.close()


async def _end(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _serve_metrics(config: RouterConfig, metrics: ProcessMetrics, tell: Tell | None) -> None:
    if tell is None:
        metrics.serve(config.metrics)
    elif config.metrics is None:
        tell("STARTED")
    else:
        host = _WORKER_METRICS.rpartition(":")[0]
        tell(f"STARTED {host}:{metrics.serve(_WORKER_METRICS)}")


async def _serve_until_stopped(
    start: Callable[[], Awaitable[Server]],
    worth: "asyncio.Task[None]",
    has_lifeline: bool,
    tell: Tell | None,
) -> Server | None:
    """The server, if there came to be one, when this process is asked to end.

    A worker does not listen before it is ready: nobody else would take the connection from it.
    """
    stopped = asyncio.create_task(until_stopped(lifeline=has_lifeline), name="until-stopped")
    server = await start() if tell is None else None
    await asyncio.wait((worth, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not stopped.done():
        if server is None:
            server = await start()
        await server.set_ready(True)
        get_log().info("router_ready", port=server.port)
        if tell is not None:
            tell("READY")
    await stopped
    return server


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


def _line(config: RouterConfig) -> CallLine:
    """A quarter of the time that callers usually allow is no overload: batches need company."""
    limit = ConcurrencyLimit(
        time.monotonic(),
        limit_min=_CALLS_RUNNING_MIN,
        limit_max=config.requests_in_flight_max,
        tolerated_s=config.default_deadline_ms / 4000,
    )
    return CallLine(limit)


def _add_gauges(
    metrics: ProcessMetrics,
    links: Mapping[str, NodeLink],
    gatherer: Gatherer,
    rankers: Rankers,
    line: CallLine,
) -> None:
    metrics.gauge("calls_running", "Calls whose turn it is.", lambda: line.running)
    metrics.gauge("calls_limit", "Calls that may run at once.", lambda: line.limit)
    metrics.gauge("calls_waiting", "Calls that wait for their turn.", lambda: line.waiting)
    metrics.gauge("nodes_usable", "Nodes that searches are sent to.", lambda: _usable_count(links))
    metrics.gauge(
        "queries_waiting", "Queries that wait for their batch.", lambda: gatherer.waiting_rows
    )
    metrics.gauge("batches_out", "Batches that somebody waits for.", lambda: gatherer.batches_out)
    metrics.gauge(
        "batches_out_max", "Batches that may be out at once.", lambda: gatherer.batches_out_max
    )
    metrics.counts(
        "queries_sent",
        "Queries sent to replicated nodes: first, hedge, retry; refused: not sent, by the budget.",
        "kind",
        gatherer.dispatch.budget.counts,
    )
    metrics.gauge(
        "hedge_delay_seconds",
        "How long the last batch waits for a node until others are asked, too.",
        lambda: gatherer.dispatch.hedge_delay_s,
    )
    metrics.gauge(
        "rankers_usable", "Rankers that candidates are sent to.", lambda: rankers.usable_count
    )


async def _start(
    config: RouterConfig,
    handlers: Mapping[str, Mapping[str, Handler]],
    line: CallLine,
    metrics: ProcessMetrics,
    *,
    shares_port: bool,
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
            line=line if name == "RecommendationService" else None,
        )
        for name, methods in handlers.items()
    ]
    options = server_options(REQUEST_BYTES_MAX, ANSWER_BYTES_MAX, shares_port=shares_port)
    return await Server.start(config.listen, services, admission, options)


async def _until_worth_asking(cluster_map: ClusterMap, links: Mapping[str, NodeLink]) -> None:
    """Return once every range can be searched; after a while, once any can: part beats nothing."""
    patience_ends_s = time.monotonic() + _PATIENCE_S
    while not _is_worth_asking(cluster_map, links, time.monotonic() >= patience_ends_s):
        await asyncio.sleep(_READY_POLL_S)


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
