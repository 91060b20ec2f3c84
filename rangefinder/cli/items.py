"""`rangefinder items`: the catalogue."""

import click
import numpy as np

from rangefinder.answers import ItemsRead
from rangefinder.cli.connection import as_ids, ask, asks_a_cluster
from rangefinder.cli.output import (
    certificate_as_values,
    certificate_in_words,
    print_json,
    print_line,
    print_table,
)
from rangefinder.client import Client

_EXAMPLE = """
\b
Example:
  rangefinder items get 42 17 --embeddings --json
"""


@click.group(epilog=_EXAMPLE)
def command() -> None:
    """Read items of the catalogue."""


@command.command(epilog=_EXAMPLE)
@click.argument("ids", nargs=-1, required=True)
@click.option("--embeddings", is_flag=True, help="Show embeddings too.")
@asks_a_cluster
def get(ids: tuple[str, ...], embeddings: bool, address: str, deadline_s: float, as_json: bool) -> None:
    """Show items by id. Exit code 1 where one does not exist, or cannot be read now."""

    async def work(client: Client) -> tuple[list[str] | list[int], ItemsRead]:
        wanted = await as_ids(client, ids)
        return wanted, await client.get_items(wanted, with_embeddings=embeddings)

    wanted, read = ask(address, deadline_s, work)
    unread = [str(each) for each in _listed(read)]
    known = {str(item.id) for item in read.items} | set(unread)
    missing = [str(each) for each in wanted if str(each) not in known]
    if as_json:
        print_json(_as_values(read, missing))
    else:
        names = sorted({name for item in read.items for name in item.attributes})
        columns = ("id", *names, *(["embedding"] if embeddings else []))
        rows = [
            (
                str(item.id),
                *(item.attributes.get(name, "") for name in names),
                *([_shortened(item.embedding)] if embeddings else []),
            )
            for item in read.items
        ]
        print_table("", columns, rows)
        for each in missing:
            print_line(f"{each}: no such item")
        for each in unread:
            print_line(f"{each}: its range cannot be read now")
        print_line(certificate_in_words(read.certificate))
    if missing or unread:
        raise click.exceptions.Exit(1)


def _listed(read: ItemsRead) -> list[int] | list[str]:
    ids = read.unread_ids
    return ids.tolist() if isinstance(ids, np.ndarray) else ids


def _shortened(embedding: object) -> str:
    return np.array2string(np.asarray(embedding), precision=3, threshold=8, edgeitems=3)


def _as_values(read: ItemsRead, missing: list[str]) -> dict[str, object]:
    items = [
        {
            "id": item.id,
            "attributes": dict(item.attributes),
            **({} if item.embedding is None else {"embedding": item.embedding.tolist()}),
        }
        for item in read.items
    ]
    return {
        "items": items,
        "missing": missing,
        "unread": _listed(read),
        "certificate": certificate_as_values(read.certificate),
    }
