"""The yardstick of latency: an empty unary grpc.aio call between two processes, on uvloop."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import grpc
import uvloop

Call = Callable[[], Awaitable[None]]

METHOD = "/benchmarks.Echo/Echo"
BLOCK = 100


async def echo(request: bytes, context: object) -> bytes:
    """The empty call."""
    del context
    return request


async def serve(service: str, name: str, handler: Any) -> None:
    """Answer one RPC on a free port, printed first, until killed."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


@asynccontextmanager
async def running_echo() -> AsyncIterator[Call]:
    """An echo server in a process of its own, until the block ends; calls it once."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.echo", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method: Any = channel.unary_unary(METHOD)

            async def call() -> None:
                await method(b"")

            yield call
    finally:
        process.kill()
        await process.wait()


async def timed_ms(call: Call, count: int) -> list[float]:
    """Milliseconds of each of `count` calls, one at a time."""
    durations = []
    for _ in range(count):
        began_s = time.perf_counter()
        await call()
        durations.append((time.perf_counter() - began_s) * 1000)
    return durations


async def p50_against_echo(call: Call, block_count: int) -> tuple[float, float]:
    """The medians of a call and of an empty one, in milliseconds.

    Blocks of 100 of each in turn, so that both meet the same machine, whatever else it does.
    """
    ours, empty = [], []
    async with running_echo() as echo:
        await timed_ms(call, BLOCK)
        await timed_ms(echo, BLOCK)
        for _ in range(block_count):
            ours += await timed_ms(call, BLOCK)
            empty += await timed_ms(echo, BLOCK)
    return median(ours), median(empty)


if __name__ == "__main__":
    uvloop.run(serve("benchmarks.Echo", "Echo", grpc.unary_unary_rpc_method_handler(echo)))
