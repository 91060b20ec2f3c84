"""CPU time of Retrieve by function, of the router and of a node, with 32 requests in flight.

Samples both with py-spy, which is no dependency: `pip install py-spy`. A sample counts for the
innermost function of ours on its stack; what has none, for the event loop and grpc.aio, or for gRPC's
own thread.
"""

import argparse
import asyncio
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.recommendation import cpu_seconds
from benchmarks.retrieval import ITEM_COUNT, Catalogue, build, large_catalogue
from rangefinder.cli.output import print_table
from rangefinder.edge.channel import open_channel
from rangefinder.edge.columns import vector_of
from rangefinder.v1.recommendation_pb2 import RetrieveRequest
from tests.kit.processes import Cluster, running_cluster

PROCESSES = ("router-0", "node-0")
IN_FLIGHT, WIDTH, SHARDS = 32, 40, 2
WARM_UP_S, DEADLINE_S = 1.0, 5.0
FUNCTIONS = 14
_OURS = re.compile(r"^(.*) \(((?:rangefinder|router|shard_server)/\S+):\d+\)$")
_STARTS = ("rangefinder/process.py",)  # On every stack of the main thread.


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hot_path", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="of sampling")
    seconds = parser.parse_args().seconds
    spy = shutil.which("py-spy")
    if spy is None:
        raise SystemExit("error: py-spy is not installed: pip install py-spy")
    with tempfile.TemporaryDirectory() as folder:
        catalogue = large_catalogue(Path(folder))
        build(catalogue, Path(folder) / "release", SHARDS)
        uvloop.run(measure(catalogue, Path(folder), spy, seconds))


async def measure(catalogue: Catalogue, folder: Path, spy: str, seconds: int) -> None:
    """Sample under load; a table for each process."""
    async with running_cluster(folder / "release", folder / "cluster") as cluster:
        async with load(catalogue, cluster) as answered:
            await asyncio.sleep(WARM_UP_S)
            before_s = [cpu_seconds(cluster.pid(name)) for name in PROCESSES]
            count = answered.total()
            await asyncio.gather(
                *(sample(spy, cluster.pid(name), folder / name, seconds) for name in PROCESSES)
            )
            count = answered.total() - count
        for name, began_s in zip(PROCESSES, before_s, strict=True):
            cpu_us = (cpu_seconds(cluster.pid(name)) - began_s) / count * 1e6
            show(name, by_function((folder / name).read_text(encoding="utf-8")), cpu_us)


@asynccontextmanager
async def load(catalogue: Catalogue, cluster: Cluster) -> AsyncIterator[Counter[str]]:
    """Requests in flight until the block ends; yields how many were answered."""
    answered: Counter[str] = Counter()
    requests = cycle(
        RetrieveRequest(query=vector_of(query), item_count=ITEM_COUNT, search_width=WIDTH)
        for query in catalogue.queries
    )
    async with open_channel(cluster.address) as channel:
        method: Any = channel.unary_unary("/rangefinder.v1.RecommendationService/Retrieve")

        async def lane() -> None:
            while True:
                await method(next(requests).SerializeToString(), timeout=DEADLINE_S)
                answered["requests"] += 1

        lanes = [asyncio.create_task(lane(), name=f"lane-{each}") for each in range(IN_FLIGHT)]
        try:
            yield answered
        finally:
            for each in lanes:
                each.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)


async def sample(spy: str, pid: int, file: Path, seconds: int) -> None:
    """Stacks of a process, one line for each kind: frames, and how often."""
    options = ("--nonblocking", "--rate", "400", "--format", "raw", "--duration", str(seconds))
    process = await asyncio.create_subprocess_exec(
        *(spy, "record", *options, "--output", str(file), "--pid", str(pid)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if await process.wait():
        raise SystemExit("error: py-spy could not sample: it needs the right to trace processes")


def by_function(stacks: str) -> Counter[str]:
    """Samples by what they count for."""
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        found[_owner(stack.split(";"))] += int(count)
    return found


def _owner(frames: list[str]) -> str:
    for frame in reversed(frames):
        ours = _OURS.match(frame)
        if ours and ours[1] != "<module>" and ours[2] not in _STARTS:
            return f"{ours[1].replace('.<locals>', '')} ({ours[2]})"
    is_main = any("process.py" in frame for frame in frames)
    return "event loop and grpc.aio" if is_main else "gRPC's thread, and others"


def show(name: str, samples: Counter[str], cpu_us: float) -> None:
    """The functions that take most."""
    total = samples.total()
    rows = [
        (what, f"{count / total:.1%}", count / total * cpu_us)
        for what, count in samples.most_common(FUNCTIONS)
    ]
    title = f"{name}: {cpu_us:.0f} us of CPU a query, {IN_FLIGHT} in flight"
    print_table(title, ("function", "share", "us a query"), rows)


if __name__ == "__main__":
    main()
