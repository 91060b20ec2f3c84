"""The metrics of several processes at one address: each sample with the name of its process.

Prometheus reads one target for a router, however many workers it has.
"""

import http.client
import urllib.request
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from rangefinder.telemetry.metrics import serve_collectors

_READ_S_MAX = 1.0

# Straight there, whatever proxy the environment names.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def serve_gathered(
    address: str | None, sources: Callable[[], Mapping[str, str]], *own: Collector
) -> None:
    """Answer /metrics at host:port from processes that have theirs at host:port, by name.

    own: what is known of them here.
    """
    serve_collectors(address, _Gathered(sources), *own)


def read_samples(address: str, name: str) -> list[float]:
    """The values of a metric at host:port; none where nobody answers."""
    families = _families(address)
    return [sample.value for each in families for sample in each.samples if sample.name == name]


def read_counts(address: str, name: str, label: str) -> dict[str, float]:
    """A metric at host:port by one of its labels, all processes together; empty: nobody answers."""
    counts: dict[str, float] = {}
    for each in _families(address):
        for sample in each.samples:
            if sample.name == name:
                value = sample.labels[label]
                counts[value] = counts.get(value, 0.0) + sample.value
    return counts


class _Gathered(Collector):
    def __init__(self, sources: Callable[[], Mapping[str, str]]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        """A process that does not answer is left out: its absence is what there is to see."""
        found: dict[str, Metric] = {}
        for process, address in self._sources().items():
            for family in _families(address):
                kept = found.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    kept.add_sample(sample.name, sample.labels | {"worker": process}, sample.value)
        return found.values()


def _families(address: str) -> list[Metric]:
    try:
        with _OPENER.open(f"http://{address}/metrics", timeout=_READ_S_MAX) as answer:
            return list(text_string_to_metric_families(answer.read().decode()))
    except (OSError, ValueError, http.client.HTTPException):
        return []
