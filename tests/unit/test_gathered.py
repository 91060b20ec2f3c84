"""Metrics of several processes at one address."""

from rangefinder.telemetry.gathered import read_counts, read_samples, serve_gathered
from rangefinder.telemetry.metrics import ProcessMetrics
from tests.kit.processes import free_port

NAME = "rangefinder_partial_answers_total"


def serving(missed: int) -> str:
    """A process that counted so many; the address of its metrics."""
    metrics = ProcessMetrics()
    metrics.counter("partial_answers", "Missed.", ("reason",)).labels("NOT_READY").inc(missed)
    metrics.rpc.observe("Retrieve", "OK", 0.25)
    return f"127.0.0.1:{metrics.serve('127.0.0.1:0')}"


def test_each_sample_names_its_process() -> None:
    """Counters and histograms come out as they went in, with the worker that has them; a process that
    is gone is left out."""
    sources = {"router-0/1": serving(3), "router-0/2": serving(4), "gone": f"127.0.0.1:{free_port()}"}
    address = f"127.0.0.1:{free_port()}"
    serve_gathered(address, lambda: sources)

    assert sorted(read_samples(address, NAME)) == [3.0, 4.0]
    assert read_samples(address, "rangefinder_rpc_seconds_sum") == [0.25, 0.25]
    assert read_samples(address, "rangefinder_rpc_seconds_count") == [1.0, 1.0]
    assert read_samples(f"127.0.0.1:{free_port()}", NAME) == []
    assert read_counts(address, NAME, "reason") == {"NOT_READY": 7.0}
    assert read_counts(f"127.0.0.1:{free_port()}", NAME, "reason") == {}
