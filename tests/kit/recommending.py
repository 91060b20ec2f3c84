"""A cluster that recommends: real nodes, and a router with the tables and rankers of a test."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from rangefinder import Client, RangefinderError
from rangefinder.documents import to_yaml
from rangefinder.map_file import read_map, write_map
from router.config import RouterConfig
from router.pipeline import Pipeline
from tests.kit.processes import START_S_MAX, Cluster, free_port, running_cluster
from tests.kit.scripted_ranker import MODEL, VERSION
from tests.kit.tasted_release import TastedRelease
from tests.kit.waiting import until_async

DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommending:
    """A cluster, and the router that recommends from it."""

    release: TastedRelease
    address: str
    cluster: Cluster
    client: Client
    channel: grpc.aio.Channel


@asynccontextmanager
async def recommending(
    release: TastedRelease,
    folder: Path,
    rankers: Sequence[str],
    *,
    pipelines: Mapping[str, Pipeline] | None = None,
    with_tables: bool = True,
) -> AsyncIterator[Recommending]:
    """Start it all and stop it at the end."""
    async with running_cluster(release.path, folder / "cluster") as cluster:
        config = RouterConfig(
            name="router-of-test",
            listen=f"127.0.0.1:{free_port()}",
            map_file=_map_with_ranker(cluster, folder / "map.json"),
            release=release.path if with_tables else None,
            rankers=tuple(rankers),
            pipelines=dict(pipelines or {}),
        )
        async with (
            running_router(config, folder),
            Client(config.listen, deadline_s=DEADLINE_S) as client,
            grpc.aio.insecure_channel(config.listen) as channel,
        ):
            await until_ready(client, release)
            yield Recommending(
                release=release, address=config.listen, cluster=cluster, client=client, channel=channel
            )


def _map_with_ranker(cluster: Cluster, path: Path) -> Path:
    """The cluster's own map, but that the release names the scripted ranker."""
    cluster_map = read_map(cluster.data_dir / "map" / "map.json")
    (release,) = cluster_map.releases
    named = replace(release, ranker_model=MODEL, ranker_model_version=VERSION)
    write_map(path, replace(cluster_map, releases=(named,)))
    return path


@asynccontextmanager
async def running_router(
    config: RouterConfig, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A router process of one's own. It must leave no traceback."""
    path, output = folder / f"{config.name}.yaml", folder / f"{config.name}.txt"
    path.write_text(to_yaml(replace(config, drain_announce_s=0.0)))
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "router", "--config", str(path)), stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(START_S_MAX):
            await process.wait()
    text = output.read_text()
    assert "Traceback" not in text, text[text.index("Traceback") :][:4_000]


async def until_ready(client: Client, release: TastedRelease) -> None:
    """Wait until every range is searched."""

    async def is_ready() -> bool:
        with contextlib.suppress(RangefinderError):
            await client.retrieve(release.embeddings[0], minimum_coverage=1.0)
            return True
        return False

    await until_async(is_ready, within_s=START_S_MAX, what="the router answers")
