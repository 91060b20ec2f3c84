"""The yardstick of latency: an empty unary grpc.aio call between two processes, on uvloop."""

import asyncio
import sys
import time
from typing import Any

import grpc
import numpy as np
import uvloop

METHOD = "/benchmarks.Echo/Echo"


async def serve() -> None:
    """Answer empty calls on a free port, printed first, until killed."""

    async def echo(request: bytes, context: object) -> bytes:
        del context
        return request

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("benchmarks.Echo", {"Echo": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


async def measure_p50_ms(call_count: int) -> float:
    """Start an echo server, call it one call at a time, and return the median in milliseconds."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.echo", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(METHOD)
            durations = []
            for _ in range(call_count):
                began_s = time.perf_counter()
                await call(b"")
                durations.append(time.perf_counter() - began_s)
    finally:
        process.kill()
        await process.wait()
    return float(np.median(durations)) * 1000


if __name__ == "__main__":
    uvloop.run(serve())
