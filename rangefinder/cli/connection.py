"""What commands that ask a cluster have in common."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import click

from rangefinder.client import Client
from rangefinder.errors import InputRefused, ReplicaUnavailable
from rangefinder.v1 import cluster_pb2

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_ADDRESS = "127.0.0.1:7000"


def asks_a_cluster_within(default_s: float) -> Callable[[F], F]:
    """Adds the options of every command that asks a cluster; default_s is that of --deadline."""
    options = (
        click.option(
            "--address",
            default=DEFAULT_ADDRESS,
            envvar="RANGEFINDER_ADDRESS",
            show_default=True,
            help="host:port of a router.",
        ),
        click.option(
            "--deadline",
            "deadline_s",
            type=click.FloatRange(0.001, 10),
            default=default_s,
            show_default=True,
            help="Seconds that the answer may take.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON."),
    )

    def with_options(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return with_options


asks_a_cluster = asks_a_cluster_within(5.0)


def ask(address: str, deadline_s: float, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Run work with a client. Raises InputRefused where nobody answers at the address."""
    if not address.strip():
        raise InputRefused("--address is empty: give host:port of a router")

    async def run() -> T:
        async with Client(address, deadline_s=deadline_s) as client:
            return await work(client)

    try:
        return asyncio.run(run())
    except ReplicaUnavailable as error:
        raise InputRefused(
            f"{address} does not answer ({error.message}): give --address, or start a cluster with"
            " `rangefinder up`"
        ) from None


async def as_ids(client: Client, texts: Sequence[str]) -> list[str] | list[int]:
    """Ids as a person typed them, as the cluster's kind."""
    cluster_map = await client.cluster_map()
    if cluster_map.id_kind == cluster_pb2.ID_KIND_TEXT:
        return [_as_text(text) for text in texts]
    return [_as_integer(text) for text in texts]


def _as_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputRefused(f"the id {text!r} is not UTF-8") from None
    return text


def _as_integer(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise InputRefused(f"ids of this cluster are integers: {text!r} is not") from None
    if not -(2**63) <= value < 2**63:
        raise InputRefused(f"ids of this cluster are integers: {text} does not fit into an int64")
    return value
