"""`make demo`: from a generated catalogue to a cluster that loses a node and says so.

Everything it does is a `rangefinder` command that it prints first; what it makes lies in demo/.
"""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.worlds import World, generate
from rangefinder import Client, RangefinderError
from rangefinder.cli.output import certificate_in_words, print_line

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "demo"
COMMAND = Path(sys.executable).with_name("rangefinder")

ITEM_COUNT, DIMENSION, SHARD_COUNT, NODE_COUNT = 50_000, 64, 4, 2
SHOWN_ITEMS = (7, 1234, 40_000)
PROBED_QUERIES = 500
WAIT_S_MAX = 60.0


def main() -> None:
    """Run the demo; an expected failure is one line."""
    began_s = time.monotonic()
    try:
        asyncio.run(demonstrate())
    except (RangefinderError, DemoFailed) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted")
    print_line(f"\nDone in {time.monotonic() - began_s:.0f} s. What was made lies in {FOLDER.name}/.")


class DemoFailed(Exception):
    """A step did not do what it should."""


async def demonstrate() -> None:
    """Every step in order."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    port = free_port()
    address = f"127.0.0.1:{port}"
    world = generate(ITEM_COUNT, DIMENSION, query_count=PROBED_QUERIES)
    tell(f"A catalogue of {ITEM_COUNT:,} titled items in {DIMENSION} dimensions, as a Parquet file")
    write_parquet(world, FOLDER / "items.parquet")
    tell(f"Built into a release of {SHARD_COUNT} shards: indexed, calibrated, checksummed")
    await run(
        *("build", "--items", "demo/items.parquet", "--metric", "cosine"),
        *("--shards", SHARD_COUNT, "--out", "demo/release"),
    )
    tell(f"Served by {NODE_COUNT} nodes and a router, each a process of its own")
    async with cluster(port):
        tell("Neighbours of three items")
        for item in SHOWN_ITEMS:
            await run("retrieve", "--address", address, "--like", item, "--count", 5)
        tell(f"How much an index finds of what there is: {PROBED_QUERIES} queries it has never seen")
        await show_recall(world, address)
        await lose_a_node(address)
    tell("Everything is stopped")


async def lose_a_node(address: str) -> None:
    """Kill a node, ask, wait until it is back, ask again."""
    pid = int((FOLDER / "data" / "run" / "node-1.pid").read_text(encoding="utf-8"))
    tell(f"node-1 is killed: kill -9 {pid}")
    os.kill(pid, signal.SIGKILL)
    await wait_until(address, lambda coverage: coverage < 1)
    tell("The next answer says what it missed")
    await run("retrieve", "--address", address, "--like", await a_readable_item(address), "--count", 5)
    tell("`rangefinder up` starts it again after two seconds; then the answer is whole")
    await wait_until(address, lambda coverage: coverage == 1)
    await run("retrieve", "--address", address, "--like", SHOWN_ITEMS[0], "--count", 5)
    await run("status", "--address", address)


def write_parquet(world: World, path: Path) -> None:
    """The world as `rangefinder build` reads it: id, embedding, and attributes."""
    flat = pa.array(world.rows.reshape(-1))
    columns = {
        "id": pa.array(np.arange(len(world.rows))),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, world.rows.shape[1]),
        "title": pa.array(world.titles()),
        "cluster": pa.array(world.clusters),
    }
    pq.write_table(pa.table(columns), path)


async def show_recall(world: World, address: str) -> None:
    """Recall@10 at the calibrated width against exact searches of the same cluster."""
    async with Client(address, deadline_s=10) as client:
        found = await client.retrieve_batch(world.queries, 10, minimum_coverage=1)
        truth = await client.retrieve_batch(world.queries, 10, exact=True, minimum_coverage=1)
    shape = (len(world.queries), 10)
    recall = (found.scores.reshape(shape) >= truth.scores.reshape(shape)[:, -1:]).mean()
    print_line(f"recall@10 against exact search: {recall:.4f}")
    print_line(f"certificate: {certificate_in_words(found.certificate)}")


async def a_readable_item(address: str) -> int:
    """One of the shown items whose range can be read now, else any that can."""
    async with Client(address, deadline_s=5) as client:
        read = await client.get_items([*SHOWN_ITEMS, *range(50)])
    return int(read.items[0].id)


async def wait_until(address: str, is_enough: Callable[[float], bool]) -> None:
    """Ask until the coverage of an answer is as wanted."""
    ends_s = time.monotonic() + WAIT_S_MAX
    async with Client(address, deadline_s=2) as client:
        while time.monotonic() < ends_s:
            answer = await client.retrieve(np.ones(DIMENSION), 1)
            if is_enough(answer.certificate.coverage):
                return
            await asyncio.sleep(0.1)
    raise DemoFailed(f"the cluster did not change within {WAIT_S_MAX:g} s: see {FOLDER}/data/output")


async def run(*arguments: object) -> None:
    """Run a command, shown first, to its end."""
    words = [str(each) for each in arguments]
    print_line(f"$ rangefinder {shlex.join(words)}")
    process = await asyncio.create_subprocess_exec(COMMAND, *words, cwd=ROOT)
    if await process.wait():
        raise DemoFailed(f"`rangefinder {words[0]}` failed")


@asynccontextmanager
async def cluster(port: int) -> AsyncIterator[None]:
    """`rangefinder up` until the block ends."""
    words = f"up --release demo/release --data-dir demo/data --port {port} --nodes {NODE_COUNT}"
    print_line(f"$ rangefinder {words} &")
    process = await asyncio.create_subprocess_exec(
        COMMAND, *words.split(), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode().strip()
        if not line:
            raise DemoFailed("`rangefinder up` did not come up")
        print_line(line)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()


def free_port() -> int:
    """The default port where it is free, else another."""
    for port in (7000, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DemoFailed("no port is free")


def tell(text: str) -> None:
    print_line(f"\n== {text}")


if __name__ == "__main__":
    main()
