"""A ranking service that does what a test says; run as a module it is one in a process of its own.

Rightly, an item's score is the low half of its key, so that anybody can tell it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2

from rangefinder.v1.ranking_pb2 import ListModelsResponse, Model, RankRequest, RankResponse
from tests.kit.nasty_world import key_of

MODEL, VERSION = "scripted", "3"

Context = grpc.aio.ServicerContext[bytes, bytes]
Script = Callable[[RankRequest, Context], Awaitable[RankResponse | bytes]]


def score_of(item_id: int | str, id_kind: str) -> float:
    """The right score, exact in float32."""
    return (key_of(item_id, id_kind) % 65_536) / 65_536


def ranking_of(request: RankRequest, *, scored: int | None = None) -> RankResponse:
    """The right answer, with only the first `scored` candidates scored."""
    is_text = bool(request.items.texts)
    ids: list[Any] = list(request.items.texts if is_text else request.items.integers)
    count = len(ids) if scored is None else min(scored, len(ids))
    kind = "text" if is_text else "integer"
    scores = [score_of(each, kind) for each in ids[:count]]
    order = sorted(range(count), key=lambda place: -scores[place])
    order = [*order, *range(count, len(ids))][: request.item_count or len(ids)]
    response = RankResponse(
        scores=[scores[place] if place < count else np.nan for place in order],
        model=request.model,
        model_version=request.model_version,
        scored_count=count,
    )
    column = response.items.texts if is_text else response.items.integers
    column.extend(ids[place] for place in order)
    if request.explain:
        response.head_scores["main"].values.extend(response.scores)
        response.features["place"].values.extend(order)
    return response


async def rightly(request: RankRequest, context: Context) -> RankResponse:
    """Rank everything."""
    return ranking_of(request)


def partly(scored: int) -> Script:
    """Score the first ones alone."""

    async def script(request: RankRequest, context: Context) -> RankResponse:
        return ranking_of(request, scored=scored)

    return script


def changed(change: Callable[[RankResponse], object]) -> Script:
    """Answer rightly, but for something."""

    async def script(request: RankRequest, context: Context) -> RankResponse:
        response = ranking_of(request)
        change(response)
        return response

    return script


async def garbage(request: RankRequest, context: Context) -> bytes:
    """Bytes that are no message."""
    return b"\xff\xff garbage"


async def never(request: RankRequest, context: Context) -> RankResponse:
    """Keep silent for longer than any deadline."""
    await asyncio.sleep(30)
    return RankResponse()


def refusing(code: grpc.StatusCode, reason: str = "") -> Script:
    """Fail, with a reason of ours or as a stranger does."""

    async def script(request: RankRequest, context: Context) -> RankResponse:
        trailers: tuple[tuple[str, bytes], ...] = ()
        if reason:
            info = AnyMessage()
            info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="rangefinder"))
            status = status_pb2.Status(
                code=code_pb2.Code.Value(code.name), message="scripted", details=[info]
            )
            trailers = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(code, "scripted", trailers)

    return script


@dataclass(slots=True)
class ScriptedRanker:
    """A server in this process; `script` may be changed at any time."""

    port: int = 0
    script: Script = rightly
    asked: list[RankRequest] = field(default_factory=list)
    probed: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def rank(self, content: bytes, context: Context) -> bytes:
        request = RankRequest.FromString(content)
        self.asked.append(request)
        answer = await self.script(request, context)
        return answer if isinstance(answer, bytes) else answer.SerializeToString()

    async def list_models(self, content: bytes, context: Context) -> bytes:
        self.probed += 1
        if self.script is never:
            await asyncio.sleep(30)
        model = Model(name=MODEL, version=VERSION, active=True)
        return ListModelsResponse(models=[model]).SerializeToString()


@asynccontextmanager
async def scripted_ranker(port: int = 0) -> AsyncIterator[ScriptedRanker]:
    """Serve until the block ends, on a free port where none is given."""
    ranker = ScriptedRanker()
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handlers: dict[str, Any] = {
        "Rank": grpc.unary_unary_rpc_method_handler(ranker.rank),
        "ListModels": grpc.unary_unary_rpc_method_handler(ranker.list_models),
    }
    name = "rangefinder.v1.RankingService"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
    ranker.port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield ranker
    finally:
        await server.stop(grace=0)


async def serve_until_killed() -> None:
    """Print the port, then rank."""
    async with scripted_ranker() as ranker:
        sys.stdout.write(f"{ranker.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve_until_killed())
