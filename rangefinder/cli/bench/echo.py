"""The yardstick of latency: an empty unary grpc.aio call between two processes, on uvloop."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from rangefinder.process import run_on_uvloop

SERVICE, NAME = "rangefinder.bench.Echo", "Echo"
METHOD = f"/{SERVICE}/{NAME}"


@dataclass(frozen=True, slots=True)
class EchoServer:
    """A server in a process of its own."""

    address: str
    pid: int


async def echo(request: bytes, context: object) -> bytes:
    """The empty call."""
    del context
    return request


async def serve(service: str, name: str, handler: Any) -> None:
    """Answer one RPC on a free port, printed first, until standard input closes."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(grace=None)


@asynccontextmanager
async def running_echo() -> AsyncIterator[EchoServer]:
    """An echo server until the block ends; it ends by itself where this process dies."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rangefinder.cli.bench.echo"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the one who measures.
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        port = int(await process.stdout.readline())
        yield EchoServer(f"127.0.0.1:{port}", process.pid)
    finally:
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    run_on_uvloop(serve(SERVICE, NAME, grpc.unary_unary_rpc_method_handler(echo)))
