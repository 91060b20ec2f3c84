"""What it costs a router to ask two nodes: by streams of gRPC, and by frames (docs/adr/0011).

    python -m benchmarks.transport

Three processes and this one: an empty unary call reaches a router, which sends 600 bytes to each of two
nodes and answers once both have sent 300 back. Nothing is searched. Printed are the median time of a
call against that of an empty call between two processes, and the CPU time of the three processes.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from typing import Any

import grpc
import psutil
import uvloop

from benchmarks.echo import BLOCK, METHOD, running_echo, serve, timed_ms
from rangefinder.edge.frames import Frames, connect, listen

QUESTION, ANSWER = b"q" * 600, b"a" * 300
NODE_METHOD = "/benchmarks.Node/Search"
BLOCK_COUNT = 20


class End(Frames):
    """An end of a connection that calls back with each message."""

    def __init__(self, on_message: "Callable[[End], None]") -> None:
        super().__init__(1 << 16)
        self._on_message = on_message

    def message_received(self, content: bytes) -> None:
        self._on_message(self)

    def closed(self, why: str) -> None:
        """The benchmark is over."""


async def frames_node() -> None:
    servers = await listen(lambda: End(lambda end: end.send(ANSWER)), "127.0.0.1", 0)
    _say(servers[0].sockets[0].getsockname()[1])
    await servers[0].serve_forever()


async def stream_node() -> None:
    async def answer(questions: AsyncIterator[bytes], context: Any) -> None:
        async for _ in questions:
            await context.write(ANSWER)

    await serve("benchmarks.Node", "Search", grpc.stream_stream_rpc_method_handler(answer))


class Asking:
    """A router that has asked both nodes and waits for them."""

    def __init__(self) -> None:
        self._left, self._done = 0, asyncio.get_running_loop().create_future()

    def begin(self, node_count: int) -> "asyncio.Future[None]":
        self._left, self._done = node_count, asyncio.get_running_loop().create_future()
        return self._done

    def count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._done.set_result(None)


async def frames_router(ports: list[int]) -> None:
    asking = Asking()
    nodes = [End(lambda _: asking.count()) for _ in ports]
    for node, port in zip(nodes, ports, strict=True):
        await connect(node, "127.0.0.1", port)

    async def ask(request: bytes, context: object) -> bytes:
        answered = asking.begin(len(nodes))
        for node in nodes:
            node.send(QUESTION)
        await answered
        return request

    await serve(*_service(ask))


async def stream_router(ports: list[int]) -> None:
    asking = Asking()
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for port in ports]
    calls: list[Any] = [channel.stream_stream(NODE_METHOD)() for channel in channels]

    async def read(call: Any) -> None:
        while await call.read() is not grpc.aio.EOF:
            asking.count()

    async def ask(request: bytes, context: object) -> bytes:
        answered = asking.begin(len(calls))
        await asyncio.gather(*(call.write(QUESTION) for call in calls))
        await answered
        return request

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(read(call), name="read")
        group.create_task(serve(*_service(ask)), name="serve")


def _service(ask: Callable[[bytes, object], Any]) -> tuple[str, str, Any]:
    service, name = METHOD.strip("/").split("/")
    return service, name, grpc.unary_unary_rpc_method_handler(ask)


def _say(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


@asynccontextmanager
async def _process(*arguments: object) -> AsyncIterator[tuple[int, psutil.Process]]:
    """A process of this benchmark and the port that it serves on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.transport", *(str(each) for each in arguments)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline()), psutil.Process(process.pid)
    finally:
        process.kill()
        await process.wait()


def _cpu_ms(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times) * 1000


async def _measure(kind: str) -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(_process(f"{kind}-node")) for _ in range(2)]
        ports = [port for port, _ in nodes]
        router = await stack.enter_async_context(_process(f"{kind}-router", *ports))
        processes = [process for _, process in (*nodes, router)]
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{router[0]}"))
        echo = await stack.enter_async_context(running_echo())
        method: Any = channel.unary_unary(METHOD)

        async def call() -> None:
            await method(b"")

        await timed_ms(call, BLOCK)
        ours, empty, spent_ms = [], [], 0.0
        for _ in range(BLOCK_COUNT):
            empty += await timed_ms(echo, BLOCK)
            before_ms = _cpu_ms(processes)
            ours += await timed_ms(call, BLOCK)
            spent_ms += _cpu_ms(processes) - before_ms
    each_ms = spent_ms / BLOCK_COUNT / BLOCK
    sys.stdout.write(
        f"{kind:7} p50 {median(ours):.2f} ms, {median(ours) / median(empty):.2f} x an empty call;"
        f" CPU of router and nodes {each_ms:.2f} ms a call\n"
    )
    sys.stdout.flush()


async def _compare() -> None:
    for _ in range(3):
        for kind in ("stream", "frames"):
            await _measure(kind)


def main() -> None:
    ports = [int(port) for port in sys.argv[2:]]
    match sys.argv[1:2]:
        case ["frames-node"]:
            uvloop.run(frames_node())
        case ["stream-node"]:
            uvloop.run(stream_node())
        case ["frames-router"]:
            uvloop.run(frames_router(ports))
        case ["stream-router"]:
            uvloop.run(stream_router(ports))
        case _:
            uvloop.run(_compare())


if __name__ == "__main__":
    main()
