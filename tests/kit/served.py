"""A catalogue that real processes serve: built by the real command, asked over gRPC."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from rangefinder import Client, RangefinderError
from rangefinder.v1.cluster_pb2_grpc import ClusterServiceStub
from rangefinder.v1.item_pb2_grpc import ItemServiceStub
from rangefinder.v1.recommendation_pb2_grpc import RecommendationServiceStub
from tests.kit.nasty_world import Catalogue
from tests.kit.processes import START_S_MAX, Cluster, rangefinder, running_cluster

if TYPE_CHECKING:  # These stand in the type stubs alone.
    from rangefinder.v1.cluster_pb2_grpc import ClusterServiceAsyncStub
    from rangefinder.v1.item_pb2_grpc import ItemServiceAsyncStub
    from rangefinder.v1.recommendation_pb2_grpc import RecommendationServiceAsyncStub

# Time enough on a machine that other tests keep busy; it is also the longest that a router grants.
DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What `rangefinder build` made of a catalogue."""

    catalogue: Catalogue
    path: Path
    widths_at_10: list[str]  # Of each segment; "exact" where no width holds the recall target.

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A cluster, what it serves, and ways to ask it."""

    release: Release
    cluster: Cluster
    client: Client
    channel: grpc.aio.Channel
    recommendations: "RecommendationServiceAsyncStub"
    items: "ItemServiceAsyncStub"
    clusters: "ClusterServiceAsyncStub"

    @property
    def catalogue(self) -> Catalogue:
        return self.release.catalogue

    def tracebacks(self) -> list[str]:
        """What stands in the output of any process from a traceback on."""
        names = sorted(path.stem for path in (self.cluster.data_dir / "output").iterdir())
        outputs = {name: self.cluster.output(name) for name in names}
        return [
            f"{name}: {text[text.index('Traceback') :][:4000]}"
            for name, text in outputs.items()
            if "Traceback" in text
        ]

    async def until_whole(self) -> None:
        """Return when an answer covers the whole catalogue."""
        async with asyncio.timeout(START_S_MAX):
            while True:
                await self.channel.channel_ready()
                with contextlib.suppress(RangefinderError):
                    await self.client.retrieve(self.catalogue.queries[0], minimum_coverage=1.0)
                    return

    @contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """Processes that do nothing, but are there, until the block ends."""
        for name in names:
            self.cluster.signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            for name in names:
                self.cluster.signal(name, signal.SIGCONT)


async def build(catalogue: Catalogue, folder: Path, *options: object) -> Release:
    """Build a release of a catalogue in a new folder with the real command."""
    files = await asyncio.to_thread(catalogue.write, folder / "files")
    return await build_from(catalogue, folder, *files, *options)


async def build_from(catalogue: Catalogue, folder: Path, *options: object) -> Release:
    """Build a release of a catalogue whose files the options name."""
    path = folder / f"release-{catalogue.metric}"
    done = await asyncio.to_thread(rangefinder, "build", *options, "--json", "--out", path)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    widths = [segment["width_at_10"] for segment in json.loads(done.stdout)["segments"]]
    return Release(catalogue=catalogue, path=path, widths_at_10=widths)


@asynccontextmanager
async def serving(release: Release, data_dir: Path, *, node_count: int = 2) -> AsyncIterator[Served]:
    """Serve a release. At the end it still answers, and no process has left a traceback."""
    async with (
        running_cluster(release.path, data_dir, node_count=node_count) as cluster,
        Client(cluster.address, deadline_s=DEADLINE_S) as client,
        grpc.aio.insecure_channel(cluster.address) as channel,
    ):
        served = Served(
            release=release,
            cluster=cluster,
            client=client,
            channel=channel,
            recommendations=RecommendationServiceStub(channel),
            items=ItemServiceStub(channel),
            clusters=ClusterServiceStub(channel),
        )
        yield served
        await served.until_whole()
    assert [] == served.tracebacks()
