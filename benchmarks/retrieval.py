"""`make bench`: what building, loading and retrieving cost, against yardsticks of the same run.

Prints a table and writes benchmarks/results/retrieval.json. Uses the SIFT descriptors where
RANGEFINDER_DATA has them, else a generated world of the same size. Ratios of one run compare;
absolute times are this machine's.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.bare_hnswlib import private_bytes
from benchmarks.datasets import dataset
from benchmarks.echo import p50_against_echo
from benchmarks.figures import Figure, at_least, at_most, report, say
from benchmarks.worlds import generate
from rangefinder import Client
from rangefinder.edge.channel import open_channel
from rangefinder.edge.columns import vector_of
from rangefinder.v1.recommendation_pb2 import RetrieveRequest
from tests.kit.processes import Cluster, rangefinder, running_cluster

METRICS = ("ip", "cosine", "l2")
BATCH_ROWS = 100
ITEM_COUNT = 10
LATENCY_BLOCKS = 20  # Of 100 requests each, in each run.


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What is built and asked."""

    name: str
    rows_file: Path
    row_count: int
    queries: npt.NDArray[np.float32]
    metric: str


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each timed step; medians are quoted")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        catalogue = large_catalogue(Path(folder))
        figures = uvloop.run(measure(catalogue, Path(folder), runs))
    report(f"retrieval on {catalogue.name}, medians of {runs} runs", figures, "retrieval.json")


def large_catalogue(folder: Path) -> Catalogue:
    """SIFT descriptors where they are, else a generated world of their size."""
    sift = dataset("sift-caltech-200k")
    if sift is not None:
        queries = np.load(sift / "query.npy").astype(np.float32)
        return Catalogue(
            name="sift-caltech-200k",
            rows_file=sift / "base.npy",
            row_count=200_000,
            queries=queries,
            metric="l2",
        )
    return small_catalogue(folder, "l2", item_count=200_000, dimension=128)


def small_catalogue(folder: Path, metric: str, *, item_count: int, dimension: int) -> Catalogue:
    """A generated world on disk."""
    world = generate(item_count, dimension, query_count=2_000)
    path = folder / f"world-{item_count}.npy"
    np.save(path, world.rows)
    return Catalogue(
        name=f"generated {item_count:,} x {dimension}",
        rows_file=path,
        row_count=item_count,
        queries=world.queries,
        metric=metric,
    )


async def measure(catalogue: Catalogue, folder: Path, runs: int) -> list[Figure]:
    """All figures, those of the large catalogue first."""
    release = folder / "release"
    figures = [build_rate(catalogue, release, folder, runs)]
    figures += await one_node(catalogue, release, folder)
    async with running_cluster(release, folder / "two") as cluster:
        figures.append(await recall_through_router(catalogue, cluster))
        figures.append(await latency(catalogue, cluster, runs))
    for metric in METRICS:
        world = small_catalogue(folder, metric, item_count=50_000, dimension=64)
        out = folder / f"release-{metric}"
        build(world, out, shards=4)
        async with running_cluster(out, folder / f"data-{metric}") as cluster:
            figures.append(await recall_through_router(world, cluster))
    return figures


def build(catalogue: Catalogue, out: Path, shards: int) -> float:
    """Build a release with the command; returns seconds of the whole process."""
    say(f"building {catalogue.name} ({catalogue.metric}) into {shards} shards")
    began_s = time.perf_counter()
    result = rangefinder(
        *("build", "--embeddings", catalogue.rows_file, "--metric", catalogue.metric),
        *("--shards", shards, "--out", out),
        timeout_s=3600,
    )
    if result.returncode:
        raise SystemExit(result.stderr)
    return time.perf_counter() - began_s


def build_rate(catalogue: Catalogue, release: Path, folder: Path, runs: int) -> Figure:
    """Our rate as a share of two bare builds side by side, in turn."""
    ratios = []
    for run in range(runs):
        out = release if run == 0 else folder / f"release-{run}"
        ours_s = build(catalogue, out, shards=2)
        bare_s = bare_build(catalogue)
        say(f"ours {ours_s:.1f} s, bare hnswlib {bare_s:.1f} s")
        ratios.append(bare_s / ours_s)
    return at_least("build rate / two bare hnswlib builds side by side", median(ratios), 0.8)


def bare_build(catalogue: Catalogue) -> float:
    """Seconds until two processes have indexed half of the rows each; whole processes, as ours."""
    began_s = time.perf_counter()
    half = catalogue.row_count // 2
    processes = [
        subprocess.Popen(
            bare_command("build", catalogue.rows_file, catalogue.metric, start, start + half),
        )
        for start in (0, half)
    ]
    if any(process.wait() for process in processes):
        raise SystemExit("bench: the bare build failed")
    return time.perf_counter() - began_s


def bare_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.bare_hnswlib", *(str(each) for each in arguments)]


async def one_node(catalogue: Catalogue, release: Path, folder: Path) -> list[Figure]:
    """A node that holds both shards: time until READY, and private memory after 500 searches."""
    began_s = time.perf_counter()
    async with running_cluster(release, folder / "one", node_count=1) as cluster:
        ready_s = time.perf_counter() - began_s
        await ask_one_by_one(catalogue, cluster, 500)
        ours = private_bytes(cluster.pid("node-0"))
    bare = bare_private_bytes(catalogue, release)
    return [
        at_most("seconds from `up` to READY, one node with both shards", ready_s, 5),
        at_most("private memory / bare hnswlib with the same indexes", ours / bare, 1.3),
    ]


def bare_private_bytes(catalogue: Catalogue, release: Path) -> int:
    """Of a process with nothing but the indexes of the release."""
    indexes = sorted(release.glob("shards/*/*/index.hnsw"))
    command = bare_command("hold", catalogue.metric, catalogue.queries.shape[1], *indexes)
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


async def ask_one_by_one(catalogue: Catalogue, cluster: Cluster, count: int) -> None:
    """`count` requests, one in flight."""
    async with Client(cluster.address) as client:
        for query in catalogue.queries[:count]:
            await client.retrieve(query, ITEM_COUNT)


async def latency(catalogue: Catalogue, cluster: Cluster, runs: int) -> Figure:
    """Retrieve against an empty call, both as bare calls of gRPC, one in flight, in turn."""
    ratios = []
    requests = cycle(
        RetrieveRequest(query=vector_of(query), item_count=ITEM_COUNT).SerializeToString()
        for query in catalogue.queries
    )
    async with open_channel(cluster.address) as channel:
        method: Any = channel.unary_unary("/rangefinder.v1.RecommendationService/Retrieve")

        async def retrieve() -> None:
            await method(next(requests), timeout=1.0)

        for _ in range(runs):
            ours_ms, echo_ms = await p50_against_echo(retrieve, LATENCY_BLOCKS)
            say(f"Retrieve p50 {ours_ms:.2f} ms, empty call {echo_ms:.2f} ms")
            ratios.append(ours_ms / echo_ms)
    return at_most("Retrieve p50 / empty unary call p50, one in flight", median(ratios), 4)


async def recall_through_router(catalogue: Catalogue, cluster: Cluster) -> Figure:
    """Recall@10 at width 0 against exact = true, counted by score because of ties."""
    recalls = []
    async with Client(cluster.address, deadline_s=10) as client:
        for start in range(0, len(catalogue.queries), BATCH_ROWS):
            queries = catalogue.queries[start : start + BATCH_ROWS]
            found, truth = await asyncio.gather(
                client.retrieve_batch(queries, ITEM_COUNT, minimum_coverage=1),
                client.retrieve_batch(queries, ITEM_COUNT, exact=True, minimum_coverage=1),
            )
            shape = (len(queries), ITEM_COUNT)
            last = truth.scores.reshape(shape)[:, -1:]
            recalls.append((found.scores.reshape(shape) >= last).mean(axis=1))
    what = f"recall@10 at width 0, {catalogue.name}, {catalogue.metric}"
    return at_least(what, float(np.concatenate(recalls).mean()), 0.98)


if __name__ == "__main__":
    main()
