"""A router and nodes that find each other changed: what one sends, the other gets with a change made.

So a process meets one of another version, or under another map, as it does while a cluster is upgraded.
As in faulty_links, proxies stand between them; these read what passes through.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from rangefinder.cli.bench.links import PROXY_HOST
from rangefinder.edge.frames import Frames, connect, listen
from rangefinder.internal.v1 import node_pb2
from rangefinder.internal.v1.node_pb2 import SearchRequest, SearchResponse
from tests.kit.faulty_links import router_behind_proxies
from tests.kit.own_nodes import OwnNodes
from tests.kit.recommending import running_router

Change = Callable[[Message], object]

_SIZE_MAX = 64 << 20
_NODE_SERVICE = node_pb2.DESCRIPTOR.services_by_name["NodeService"]


def nothing(message: Message) -> None:
    """Leave a message as it is."""


@dataclass(slots=True)
class Changes:
    """What is made of messages on their way there, and of those on their way back."""

    there: Change = nothing
    back: Change = nothing


class _End(Frames):
    """One end of a proxied connection; what it gets leaves by the other one."""

    def __init__(self, kind: type[Message], change: Callable[[], Change]) -> None:
        """change: the one to be made now."""
        super().__init__(_SIZE_MAX)
        self._kind, self._change = kind, change
        self.other: _End | None = None
        self.is_over = asyncio.Event()

    def message_received(self, content: bytes) -> None:
        message = self._kind.FromString(content)
        self._change()(message)
        assert self.other is not None, "a router says nothing before it is greeted"
        self.other.send(message.SerializeToString())

    def closed(self, why: str) -> None:
        self.is_over.set()
        if self.other is not None:
            self.other.close()


class _Accepted(_End):
    """A router's end: it reaches for the node at once."""

    def __init__(self, changes: Changes, port: int, group: asyncio.TaskGroup) -> None:
        super().__init__(SearchRequest, lambda: changes.there)
        self._changes, self._port, self._group = changes, port, group

    def opened(self) -> None:
        self._group.create_task(self._reach(), name="changing-link")

    async def _reach(self) -> None:
        node = _End(SearchResponse, lambda: self._changes.back)
        node.other = self
        try:
            await connect(node, "127.0.0.1", self._port)
        except OSError:
            self.abort()
            return
        self.other = node
        if self.is_over.is_set():
            node.abort()


class ChangingCalls(grpc.GenericRpcHandler):
    """Passes unary calls on to another server."""

    def __init__(
        self, services: Iterable[ServiceDescriptor], target: grpc.aio.Channel, changes: Changes
    ) -> None:
        self._services = {service.full_name: service for service in services}
        self._target, self._changes = target, changes

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        name = str(handler_call_details.method)
        _, service, rpc = name.split("/")
        method = self._services[service].methods_by_name[rpc]
        request_kind, answer_kind = map(GetMessageClass, (method.input_type, method.output_type))

        async def pass_on(content: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            call: Any = self._target.unary_unary(name)
            request = _changed(request_kind, content, self._changes.there)
            try:
                answer = await call(request, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await context.abort(
                    error.code(), error.details() or "", tuple(error.trailing_metadata())
                )
            return _changed(answer_kind, answer, self._changes.back)

        return grpc.unary_unary_rpc_method_handler(pass_on)


def _changed(kind: type[Message], content: bytes, change: Change) -> bytes:
    message = kind.FromString(content)
    change(message)
    return bytes(message.SerializeToString())


@asynccontextmanager
async def changing_calls(
    services: Iterable[ServiceDescriptor], target: str, changes: Changes, address: str = "127.0.0.1:0"
) -> AsyncIterator[str]:
    """Pass unary calls on until the block ends; yields the address to send them to."""
    server = grpc.aio.server()
    async with grpc.aio.insecure_channel(target) as channel:
        server.add_generic_rpc_handlers([ChangingCalls(services, channel, changes)])
        port = server.add_insecure_port(address)
        await server.start()
        try:
            yield f"{address.rsplit(':', 1)[0]}:{port}"
        finally:
            await server.stop(grace=None)


@asynccontextmanager
async def _changing_searches(port: int, changes: Changes) -> AsyncIterator[None]:
    ends: list[_Accepted] = []
    async with asyncio.TaskGroup() as group:

        def accept() -> Frames:
            ends.append(_Accepted(changes, port, group))
            return ends[-1]

        servers = await listen(accept, PROXY_HOST, port)
        try:
            yield
        finally:
            for server in servers:
                server.close()
            for end in ends:
                end.abort()


@asynccontextmanager
async def changing_links(
    nodes: OwnNodes, folder: Path
) -> AsyncIterator[tuple[str, dict[str, Changes]]]:
    """A router of some nodes; yields its address, and the changes between it and each node."""
    config = router_behind_proxies(nodes.map_file, folder)
    async with AsyncExitStack() as stack:
        changes: dict[str, Changes] = {}
        for node in nodes.configs.values():
            own = changes[node.name] = Changes()
            at = node.listen.replace("127.0.0.1", PROXY_HOST)
            calls = changing_calls([_NODE_SERVICE], node.listen, own, at)
            await stack.enter_async_context(calls)
            await stack.enter_async_context(_changing_searches(node.search_port, own))
        await stack.enter_async_context(running_router(config, folder))
        yield config.listen, changes
