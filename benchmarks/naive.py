"""The yardstick of throughput: a plain unary RPC for each shard and query, and nothing gathered.

python -m benchmarks.naive                       both systems in turn; prints and writes a table
python -m benchmarks.naive node RELEASE SHARD    one shard, on a free port that is printed first
python -m benchmarks.naive router ADDRESS ...    asks every node for every query

It answers with the same indexes, scores and merge as the product, on the same loop, and leaves out what
a product needs: maps, health, certificates with reasons, deadlines that are split. A node searches on
its loop, which is the cheapest there is.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np
import uvloop

from benchmarks.datasets import dataset
from benchmarks.figures import Figure, at_least, report, say
from rangefinder.cli.bench.calls import Asked
from rangefinder.cli.bench.cluster import Cluster, ClusterOrder, started
from rangefinder.cli.bench.echo import serve
from rangefinder.cli.bench.figures import Load
from rangefinder.cli.bench.lists import Mode
from rangefinder.cli.bench.loads import Loads
from rangefinder.cli.bench.subject import (
    DIMENSION,
    ITEM_COUNT,
    Subject,
    generated,
    of_release,
    real_set,
)
from rangefinder.cli.bench.workers import workers
from rangefinder.cli.output import progress_bars
from rangefinder.edge.columns import floats_of
from rangefinder.merge import NO_SCORE, Hits, merge_hits
from rangefinder.release import read_manifest
from rangefinder.v1.recommendation_pb2 import RetrieveRequest, RetrieveResponse
from shard_server.segment import Search
from shard_server.shard import Shard

_SERVICE, _NAME = "rangefinder.v1.RecommendationService", "Retrieve"

IN_FLIGHT = 32
ANSWER_ITEMS, WIDTH = 10, 40  # The narrowest that holds a recall of 0.97 on sift-caltech-200k.
DEADLINE_S = 5.0

Answer = Callable[[bytes, Any], Awaitable[bytes]]


async def serve_answer(answer: Answer) -> None:
    """Answer Retrieve on a free port, printed first, until standard input closes."""
    await serve(_SERVICE, _NAME, grpc.unary_unary_rpc_method_handler(answer))


def node(release: Path, name: str) -> Answer:
    """Answers from one shard; ids are keys."""
    manifest = read_manifest(release)
    about = next(shard for shard in manifest.shards if shard.name == name)
    shard = Shard.open(release, manifest, about)

    async def answer(content: bytes, context: object) -> bytes:
        del context
        request = RetrieveRequest.FromString(content)
        wanted = np.array([request.item_count])
        query = floats_of(request.query)[None]
        return _answer(shard.search(Search(queries=query, wanted=wanted, width=request.search_width)))

    return answer


def router(methods: list[Any]) -> Answer:
    """Asks each node with a call of its own, and merges."""

    async def answer(content: bytes, context: object) -> bytes:
        del context
        wanted = np.array([RetrieveRequest.FromString(content).item_count])
        answers = await asyncio.gather(*(call(content, timeout=DEADLINE_S) for call in methods))
        return _answer(merge_hits([_hits(each) for each in answers], wanted))

    return answer


def _answer(hits: Hits) -> bytes:
    response = RetrieveResponse()
    found = hits.scores[0] > NO_SCORE
    response.items.integers.extend(hits.keys[0][found].view(np.int64).tolist())
    response.scores.extend(hits.scores[0][found].tolist())
    return response.SerializeToString()


def _hits(content: bytes) -> Hits:
    response = RetrieveResponse.FromString(content)
    keys = np.array(response.items.integers, np.int64).view(np.uint64)
    return Hits(keys[None], np.array(response.scores, np.float32)[None])


async def serve_router(addresses: list[str]) -> None:
    async with AsyncExitStack() as open_channels:
        methods: list[Any] = []
        for address in addresses:
            channel = await open_channels.enter_async_context(grpc.aio.insecure_channel(address))
            methods.append(channel.unary_unary(f"/{_SERVICE}/{_NAME}"))
        await serve_answer(router(methods))


@asynccontextmanager
async def process(name: str, folder: Path, *arguments: object) -> AsyncIterator[str]:
    """One process of the yardstick until the block ends; its address."""
    command = (sys.executable, "-m", "benchmarks.naive", *(str(each) for each in arguments))
    pipe = asyncio.subprocess.PIPE
    started_one = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert started_one.stdout is not None and started_one.stdin is not None
    (folder / "run" / f"{name}.pid").write_text(str(started_one.pid), encoding="utf-8")
    try:
        yield f"127.0.0.1:{int(await started_one.stdout.readline())}"
    finally:
        started_one.stdin.close()
        await started_one.wait()


@asynccontextmanager
async def naive_cluster(subject: Subject, folder: Path) -> AsyncIterator[Cluster]:
    """A node for each shard and a router, with pid files where the measuring looks for them."""
    (folder / "run").mkdir()
    async with AsyncExitStack() as processes:
        addresses = [
            await processes.enter_async_context(
                process(f"node-{number}", folder, "node", subject.path, shard.name)
            )
            for number, shard in enumerate(subject.manifest.shards)
        ]
        address = await processes.enter_async_context(process("router-0", folder, "router", *addresses))
        yield Cluster(address, folder)


async def measure(subject: Subject, folder: Path, runs: int, seconds: float) -> list[Figure]:
    """Both systems in turn."""
    order = ClusterOrder(
        release=subject.path, node_count=len(subject.manifest.shards), replica_count=1, router_workers=1
    )
    asked = Asked(
        address="",
        mode=Mode.UNARY,
        queries=subject.queries,
        queries_per_message=1,
        item_count=ANSWER_ITEMS,
        width=WIDTH,
        deadline_s=DEADLINE_S,
    )
    (naive_folder := folder / "naive").mkdir()
    with workers(1) as generators:
        loads = Loads(generators, seconds)
        async with started(order, folder) as ours, naive_cluster(subject, naive_folder) as naive:
            ratios = []
            for run in range(runs):
                mine, theirs = [
                    await loads.closed(each, replace(asked, address=each.address), IN_FLIGHT, run)
                    for each in (ours, naive)
                ]
                say(f"ours {in_words(mine)}; a call a shard {in_words(theirs)}")
                ratios.append(mine.queries_per_s / theirs.queries_per_s)
    what = f"unary, {IN_FLIGHT} in flight: throughput / that of a call a shard"
    return [at_least(what, median(ratios), 2)]


def in_words(load: Load) -> str:
    cpu = f"{load.cpu.total:,.0f}" if load.cpu else "unknown"
    return f"{load.queries_per_s:,.0f} queries/s, CPU us a query {cpu}, failed {load.failed}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.naive", description=__doc__)
    parser.add_argument("--release", type=Path, help="instead of one that is built")
    parser.add_argument("--runs", type=int, default=3, help="medians are quoted")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        subject = of_release(options.release) if options.release else built(folder)
        figures = asyncio.run(measure(subject, folder, options.runs, options.seconds))
    report(f"against a call a shard on {subject.catalogue}", figures, "naive.json")


def built(folder: Path) -> Subject:
    """SIFT descriptors where they are, else a generated world of their size; in two shards."""
    sift = dataset("sift-caltech-200k")
    catalogue = (real_set(sift.parent) if sift else None) or generated(ITEM_COUNT, DIMENSION, 0)
    with progress_bars() as bars:
        return catalogue.build(folder, 2, bars)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["node", release_folder, shard_name]:
            uvloop.run(serve_answer(node(Path(release_folder), shard_name)))
        case ["router", *node_addresses]:
            uvloop.run(serve_router(node_addresses))
        case _:
            main()
