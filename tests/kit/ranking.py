"""A real ranking service over a release of the small world, and requests to it."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import grpc
import numpy as np

from rangefinder.edge.readiness import ReadinessProbe
from rangefinder.v1.ranking_pb2 import RankRequest
from rangefinder.v1.ranking_pb2_grpc import RankingServiceStub
from rangefinder.v1.types_pb2 import ItemIds
from tests.kit.processes import START_S_MAX
from tests.kit.ranked_world import RankedRelease
from tests.kit.waiting import until, until_async

if TYPE_CHECKING:  # These stand in the type stubs alone.
    from rangefinder.v1.ranking_pb2_grpc import RankingServiceAsyncStub

RANK = "rangefinder.v1.RankingService/Rank"
LIST_MODELS = "rangefinder.v1.RankingService/ListModels"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRanker:
    """The process, and ways to ask it."""

    release: RankedRelease
    process: asyncio.subprocess.Process
    address: str
    channel: grpc.aio.Channel
    stub: "RankingServiceAsyncStub"
    output: Path


@asynccontextmanager
async def running_ranker(
    release: RankedRelease, folder: Path, **settings: object
) -> AsyncIterator[RunningRanker]:
    """Start a ranking service on a free port, wait until it is ready, stop it at the end."""
    config, output = _files(folder, {"release": str(release.path), "drain_announce_s": 0.0} | settings)
    with _opened(output) as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ranker_service", "--config", str(config)),
            stdout=file,
            stderr=file,
        )
    try:
        address = await _address(process, output)
        async with grpc.aio.insecure_channel(address) as channel, ReadinessProbe(address) as probe:

            async def is_ready() -> bool:
                assert process.returncode is None, output.read_text()
                return await probe.is_ready(1.0)

            await until_async(is_ready, within_s=START_S_MAX, what="the ranker is ready")
            yield RunningRanker(
                release=release,
                process=process,
                address=address,
                channel=channel,
                stub=RankingServiceStub(channel),
                output=output,
            )
        assert "Traceback" not in output.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        async with asyncio.timeout(START_S_MAX):
            await process.wait()


def _opened(path: Path) -> BinaryIO:
    return open(path, "wb")


def _files(folder: Path, settings: dict[str, object]) -> tuple[Path, Path]:
    """The configuration, written, and where the output goes."""
    folder.mkdir()
    (folder / "ranker.yaml").write_text(json.dumps({"listen": "127.0.0.1:0"} | settings))
    return folder / "ranker.yaml", folder / "output.txt"


async def _address(process: asyncio.subprocess.Process, output: Path) -> str:
    """What the process says in its log that it listens on."""

    def has_started() -> bool:
        assert process.returncode is None, output.read_text()
        return any(event["event"] == "ranker_started" for event in events(output))

    await until(has_started, within_s=START_S_MAX, what="the ranker has started")
    started = next(event for event in events(output) if event["event"] == "ranker_started")
    return f"127.0.0.1:{started['port']}"


def events(output: Path) -> list[dict[str, Any]]:
    """The log lines written so far, whole ones."""
    lines = output.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{")]


def request_of(own: RankedRelease, count: int = 40, seed: int = 0, /, **fields: Any) -> RankRequest:
    """Candidates of the small world in a random order, with random scores of each source."""
    random = np.random.default_rng(seed)
    numbers = random.permutation(300)[:count].tolist()
    scores = random.random((count, len(own.card.sources))).astype("<f4")
    scores[random.random(scores.shape) < 0.3] = np.nan
    ids = (
        ItemIds(integers=numbers)
        if own.kind.is_integer
        else ItemIds(texts=[f"item-{number}" for number in numbers])
    )
    given: dict[str, Any] = {
        "items": ids,
        "sources": own.card.sources,
        "source_scores": scores.tobytes(),
    }
    return RankRequest(**(given | fields))
