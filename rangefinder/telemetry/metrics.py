"""Prometheus metrics of a process, at /metrics. Only this file and gathered.py know the library."""

import time
from collections.abc import Callable, Iterator, Mapping

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from rangefinder.errors import AddressInUse

# Milliseconds to seconds: from a search of a small shard to the longest deadline.
_LATENCY_BUCKETS_S = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03),
    *(0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)


class RpcMetrics:
    """Calls by RPC and outcome, and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "rangefinder_rpc_seconds",
            "Wall time of a call, from admission to its end, by RPC and reason (OK: none).",
            ("rpc", "reason"),
            registry=registry,
            buckets=_LATENCY_BUCKETS_S,
        )
        self._of: dict[tuple[str, str], Histogram] = {}  # Found once, used for every call.

    def observe(self, rpc: str, reason: str, seconds: float) -> None:
        child = self._of.get((rpc, reason))
        if child is None:
            child = self._of.setdefault((rpc, reason), self._seconds.labels(rpc, reason))
        child.observe(seconds)


class Counts(Collector):
    """Counters as a mapping that grows: an increment of the library's takes 2 us."""

    def __init__(
        self, name: str, help_text: str, label: str, read: Callable[[], Mapping[str, int]]
    ) -> None:
        self._name, self._help, self._label, self._read = name, help_text, label, read

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._help, labels=(self._label,))
        for value, count in tuple(self._read().items()):  # Others may count meanwhile.
            family.add_metric((value,), count)
        yield family


class ProcessMetrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.rpc = RpcMetrics(self._registry)
        began_s = time.time()
        self.gauge("start_time_seconds", "When this process started, in Unix time.", lambda: began_s)

    def counter(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"rangefinder_{name}", help_text, labels, registry=self._registry)

    def counts(
        self, name: str, help_text: str, label: str, read: Callable[[], Mapping[str, int]]
    ) -> None:
        """Counts by label that are kept elsewhere, and read when they are asked for."""
        self._registry.register(Counts(f"rangefinder_{name}", help_text, label, read))

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A value read when it is asked for."""
        Gauge(f"rangefinder_{name}", help_text, registry=self._registry).set_function(read)

    def labelled_gauge(self, name: str, help_text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(f"rangefinder_{name}", help_text, labels, registry=self._registry)

    def histogram(self, name: str, help_text: str) -> Histogram:
        """Of seconds."""
        return Histogram(
            f"rangefinder_{name}", help_text, registry=self._registry, buckets=_LATENCY_BUCKETS_S
        )

    def serve(self, address: str | None) -> int:
        """Answer /metrics at host:port on a thread of its own; None: not at all. The port, or 0."""
        return _serve(address, self._registry)


def serve_collectors(address: str | None, *collectors: Collector) -> int:
    """Answer /metrics at host:port with what collectors find when they are asked."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return _serve(address, registry)


def _serve(address: str | None, registry: CollectorRegistry) -> int:
    if address is None:
        return 0
    host, port = address.rsplit(":", 1)
    try:
        server, _ = prometheus_client.start_http_server(int(port), host, registry)
    except OSError as error:
        raise AddressInUse(f"{address}: metrics: {error.strerror}") from None
    return int(server.server_port)
