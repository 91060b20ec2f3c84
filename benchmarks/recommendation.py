"""`make bench`, second part: what training costs until the first recommendation, and what one costs.

Prints a table and writes benchmarks/results/recommendation.json. Uses MovieLens 1M where
RANGEFINDER_DATA has it, and the generated marketplace. Ratios of one run compare; absolute times are
this machine's.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from benchmarks.datasets import dataset
from benchmarks.echo import p50_against_echo
from benchmarks.figures import Figure, at_most, report, say
from benchmarks.marketplace import generate
from rangefinder import Client
from rangefinder.edge.channel import open_channel
from rangefinder.release import read_manifest
from rangefinder.user_tables import UserTables
from rangefinder.v1.recommendation_pb2 import RecommendRequest
from rangefinder.v1.recommendation_pb2_grpc import RecommendationServiceStub
from tests.kit.processes import Cluster, rangefinder, running_cluster

if TYPE_CHECKING:  # It stands in the type stubs alone.
    from rangefinder.v1.recommendation_pb2_grpc import RecommendationServiceAsyncStub

SHARD_COUNT = 2
BLOCKS = 20  # Of 100 calls each.
ITEM_COUNT, CANDIDATE_COUNT = 20, 500
DEADLINE_S = 1.0

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interactions:
    """What is learned from."""

    name: str
    options: tuple[object, ...]  # Of `rangefinder train`.


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recommendation", description=__doc__)
    parser.add_argument("--only", choices=("ml-1m", "marketplace"), help="instead of both")
    only = parser.parse_args().only
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for source in sources(Path(folder)):
            if only in (None, source.name):
                (work := Path(folder) / source.name).mkdir()
                figures += uvloop.run(measure(source, work))
    report("recommendation", figures, "recommendation.json")


def sources(folder: Path) -> list[Interactions]:
    """The real set where it is, and the generated one."""
    generate().write(folder)
    files = ("--interactions", folder / "interactions.csv", "--titles", folder / "titles.csv")
    found = [Interactions(name="marketplace", options=files)]
    films = dataset("ml-1m")
    if films is None:
        say("ml-1m is absent (RANGEFINDER_DATA): left out")
        return found
    return [Interactions(name="ml-1m", options=("--interactions", films / "train.txt")), *found]


async def measure(source: Interactions, folder: Path) -> list[Figure]:
    """All figures of one set."""
    release = folder / "release"
    say(f"training on {source.name}")
    began_s = time.perf_counter()
    done = rangefinder(
        "train", *source.options, "--shards", SHARD_COUNT, "--out", release, timeout_s=3600
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    trained_s = time.perf_counter() - began_s
    users = some_users(release)
    async with (
        running_cluster(release, folder / "cluster") as cluster,
        Client(cluster.address, deadline_s=DEADLINE_S) as client,
    ):
        await client.recommend(users[0], ITEM_COUNT, exclude_seen=True)
        first_s = time.perf_counter() - began_s
        say(f"{source.name}: trained in {trained_s:.0f} s, first answer after {first_s:.0f} s")
        what = f"{source.name}: seconds from the file to the first recommendation"
        figures = [at_most(what, first_s, 180)]
        if read_manifest(release).ranker is None:
            say(f"{source.name}: a release without a ranker: nothing is ranked")
            return figures
        return figures + await recommendations(source.name, cluster, users)


def some_users(release: Path) -> list[str]:
    """Ids of up to a thousand users, in no order."""
    users = UserTables.open(release, read_manifest(release))
    assert users is not None
    return [users.texts[row].decode() for row in range(min(1_000, len(users.keys)))]


async def recommendations(name: str, cluster: Cluster, users: list[str]) -> list[Figure]:
    """Recommend against an empty call, both calls of gRPC, one in flight; and what ranking costs."""
    waiting, asked, ranked = cycle(users), 0, 0
    async with open_channel(cluster.address) as channel:
        stub: RecommendationServiceAsyncStub = RecommendationServiceStub(channel)

        async def recommend() -> None:
            nonlocal asked, ranked
            request = RecommendRequest(
                user_id=next(waiting),
                item_count=ITEM_COUNT,
                exclude_seen=True,
                candidate_count=CANDIDATE_COUNT,
            )
            answer = await stub.Recommend(request, timeout=DEADLINE_S)
            asked, ranked = asked + 1, ranked + bool(answer.ranker_model)

        cpu_s = cpu_seconds(cluster.pid("ranker-0"))
        ours_ms, echo_ms = await p50_against_echo(recommend, BLOCKS)
        cpu_s = cpu_seconds(cluster.pid("ranker-0")) - cpu_s
    say(f"{name}: Recommend p50 {ours_ms:.2f} ms, empty call p50 {echo_ms:.2f} ms")
    return [
        at_most(f"{name}: Recommend p50 / empty unary call p50, one in flight", ours_ms / echo_ms, 12),
        at_most(
            f"{name}: CPU ms of ranking {CANDIDATE_COUNT} candidates", cpu_s * 1000 / max(ranked, 1), 3
        ),
        at_most(f"{name}: share of the answers that were not ranked", 1 - ranked / asked, 0),
    ]


def cpu_seconds(pid: int) -> float:
    """Of a process, since it began: user and system time."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


if __name__ == "__main__":
    main()
