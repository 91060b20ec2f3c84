"""The clients against real routers: one that goes while it is asked, and programs without asyncio."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from rangefinder import Client, RangefinderError
from rangefinder.answers import Ids
from rangefinder.client import RetrieveStream
from router.config import RouterConfig
from tests.kit.processes import free_port, running_cluster
from tests.kit.recommending import running_router
from tests.kit.served import Served
from tests.kit.small_release import SmallRelease, build_small_release
from tests.kit.waiting import until, until_async

DEADLINE_S = 10.0
TIMES = 5
LANES = 8  # Of each kind.
ITEM_COUNT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A cluster with the router of `up`, and a folder and configuration for a second one."""

    release: SmallRelease
    folder: Path
    address: str
    second: RouterConfig


@pytest.fixture(scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    folder = tmp_path_factory.mktemp("client_faults")
    release = build_small_release(folder)
    async with running_cluster(release.path, folder / "cluster") as cluster:
        second = RouterConfig(
            name="second-router",
            listen=f"127.0.0.1:{free_port()}",
            map_file=cluster.data_dir / "map" / "map.json",
            release=release.path,
        )
        yield Pair(release=release, folder=folder, address=cluster.address, second=second)


async def until_ready(address: str, release: SmallRelease) -> None:
    async with Client(address, deadline_s=DEADLINE_S) as client:

        async def is_ready() -> bool:
            try:
                await client.retrieve(release.queries[0], minimum_coverage=1.0)
            except RangefinderError:
                return False
            return True

        await until_async(is_ready, within_s=30, what="the second router answers")


@dataclass(slots=True)
class Load:
    """Requests of every kind, on several lanes each; their answers and failures."""

    client: Client
    stream: RetrieveStream
    release: SmallRelease
    is_over: bool = False
    answered: int = 0
    wrong: list[object] = field(default_factory=list)
    right: list[Ids] = field(default_factory=list)

    async def learn(self) -> None:
        self.right = [
            (await self.client.retrieve(query, ITEM_COUNT)).ids for query in self.release.queries
        ]

    async def unary_lane(self) -> None:
        while not self.is_over:
            place = self.answered % len(self.right)
            found = await self.client.retrieve(
                self.release.queries[place], ITEM_COUNT, minimum_coverage=1.0
            )
            self._judge(found.ids, place)

    async def stream_lane(self) -> None:
        while not self.is_over:
            place = self.answered % len(self.right)
            found = await self.stream.retrieve_batch(
                self.release.queries[place : place + 1], ITEM_COUNT, minimum_coverage=1.0
            )
            self._judge(found.ids, place)

    def _judge(self, found: Ids, place: int) -> None:
        self.answered += 1
        if list(self.right[place]) != list(found):
            self.wrong.append((place, found))

    async def until_more(self, count: int) -> None:
        before = self.answered
        await until(lambda: self.answered >= before + count, within_s=30, what=f"{count} more answers")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_router_that_goes_costs_no_request(pair: Pair, number: signal.Signals) -> None:
    """Five times one of two routers is killed, or told to end, while calls and batches of a stream are
    under way on it: every one is answered, in full and as before."""
    for _ in range(TIMES):
        async with running_router(pair.second, pair.folder) as second:
            await until_ready(pair.second.listen, pair.release)
            assert [] == await wrong_while_ending(pair, second, number)


async def wrong_while_ending(
    pair: Pair, second: asyncio.subprocess.Process, number: signal.Signals
) -> list[object]:
    """Answers that were not right, of those before, during and after the end of the second router."""
    async with (
        Client(pair.second.listen, pair.address, deadline_s=DEADLINE_S) as client,
        client.stream() as stream,
        client.stream() as other,  # One of the two is at the router that goes.
    ):
        loads = [Load(client, each, pair.release) for each in (stream, other)]
        async with asyncio.TaskGroup() as group:
            for load in loads:
                await load.learn()
                for _ in range(LANES):
                    group.create_task(load.unary_lane(), name="unary-lane")
                    group.create_task(load.stream_lane(), name="stream-lane")
            for load in loads:
                await load.until_more(100)
            second.send_signal(number)
            await second.wait()
            for load in loads:
                await load.until_more(100)
                load.is_over = True
    return [*loads[0].wrong, *loads[1].wrong]


async def test_a_program_without_asyncio_gets_the_same(plain: Served, tmp_path: Path) -> None:
    """From eight threads, over a stream and by a scan: the answers of the asynchronous client, errors
    by their class; one thread more than the program has, and nothing on stderr at its end."""
    queries = plain.catalogue.queries[:5]
    np.save(tmp_path / "queries.npy", queries)
    command = ("-m", "tests.kit.sync_asking", plain.cluster.address, str(tmp_path / "queries.npy"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", *command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert (0, "") == (process.returncode, errors.decode())
    saw = json.loads(output)
    right = [
        np.asarray((await plain.client.retrieve(query, 5, exact=True)).ids).tolist()
        for query in queries
    ]
    assert all(right == each for each in saw["by_thread"])
    assert 40 == len(saw["by_thread"])
    assert [*right, right[0]] == saw["by_stream"]
    assert (600, 6_000, "WRONG_DIMENSION") == (saw["scanned"], saw["all"], saw["reason"])
    assert [plain.release.name] == saw["releases"]
    assert 1 == saw["threads"].count("rangefinder-client")
