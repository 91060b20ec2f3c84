"""Metrics of a process, as a scraper reads them."""

from urllib.request import urlopen

from rangefinder.telemetry.metrics import ProcessMetrics
from tests.kit.processes import free_port


def test_counts_that_are_kept_elsewhere_are_read_when_asked_for() -> None:
    """Each label with what it has come to by now, one that came later included."""
    counts = {"index.rank": 3}
    metrics, address = ProcessMetrics(), f"127.0.0.1:{free_port()}"
    metrics.counts("absent", "Values that were absent.", "feature", lambda: counts)
    metrics.serve(address)
    counts["index.rank"] += 4
    counts["item.age"] = 1
    with urlopen(f"http://{address}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    assert [
        'rangefinder_absent_total{feature="index.rank"} 7.0',
        'rangefinder_absent_total{feature="item.age"} 1.0',
    ] == [line for line in lines if line.startswith("rangefinder_absent_total{")]
