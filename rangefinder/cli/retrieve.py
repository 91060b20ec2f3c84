"""`rangefinder retrieve`: the nearest neighbours of an item or of an embedding."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from rangefinder.answers import AttributeValue, Retrieved
from rangefinder.cli.connection import as_ids, ask, asks_a_cluster
from rangefinder.cli.output import (
    certificate_as_values,
    certificate_in_words,
    print_json,
    print_line,
    print_table,
)
from rangefinder.client import Client
from rangefinder.errors import InputRefused
from rangefinder.width import ITEM_COUNT_MAX, WIDTH_MAX
from shard_server.build.npy_source import load_array

_EXAMPLE = """
\b
Examples:
  rangefinder retrieve --like 42 --count 10
  rangefinder retrieve --query embedding.npy --exact --json
"""

_GET_ITEMS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Neighbours:
    """An answer with what is known of its items."""

    title: str
    answer: Retrieved
    ids: list[int] | list[str]
    attributes: dict[int | str, dict[str, AttributeValue]]


@click.command(epilog=_EXAMPLE)
@click.option("--like", help="Id of an item: its neighbours, itself left out.")
@click.option("--query", type=click.Path(path_type=Path), help="Embedding, or rows of them (.npy).")
@click.option("--row", type=click.IntRange(0), default=0, show_default=True, help="Row of --query.")
@click.option(
    "--count",
    type=click.IntRange(1, ITEM_COUNT_MAX),
    default=10,
    show_default=True,
    help="Items to return at most.",
)
@click.option(
    "--width",
    type=click.IntRange(0, WIDTH_MAX),
    default=0,
    show_default=True,
    help="Search width; 0: calibrated.",
)
@click.option("--exact", is_flag=True, help="Search exactly, without the index.")
@click.option("--exclude", multiple=True, help="Id that must not be returned; may be repeated.")
@click.option("--minimum-coverage", type=float, default=0.0, show_default=True)
@asks_a_cluster
def command(
    like: str | None,
    query: Path | None,
    row: int,
    count: int,
    width: int,
    exact: bool,
    exclude: tuple[str, ...],
    minimum_coverage: float,
    address: str,
    deadline_s: float,
    as_json: bool,
) -> None:
    """Show the items nearest to an item or an embedding, and what the answer rests on."""
    if (like is None) == (query is None):
        raise click.UsageError("give either --like or --query")

    async def work(client: Client) -> _Neighbours:
        embedding, title = await _seed(client, like, query, row)
        left_out = await as_ids(client, [*exclude, *([like] if like else [])])
        answer = await client.retrieve(
            embedding,
            count,
            search_width=width,
            exact=exact,
            excluded_ids=left_out,
            minimum_coverage=minimum_coverage,
        )
        return await _describe(client, answer, title)

    _show(ask(address, deadline_s, work), as_json)


async def _seed(
    client: Client, like: str | None, query: Path | None, row: int
) -> tuple[npt.NDArray[np.float32], str]:
    """The embedding to search with, and what to call it."""
    if query is not None:
        return _read_row(query, row), f"nearest to row {row} of {query}"
    text = like or ""
    read = await client.get_items(await as_ids(client, [text]), with_embeddings=True)
    if not read.items or read.items[0].embedding is None:
        why = "its range cannot be read now" if len(read.unread_ids) else "no such item"
        raise InputRefused(f"--like {text}: {why}")
    title = read.items[0].attributes.get("title", "")
    return read.items[0].embedding, f"nearest to {text}" + (f": {title}" if title else "")


def _read_row(path: Path, row: int) -> npt.NDArray[np.float32]:
    rows = np.atleast_2d(load_array(path))
    if rows.ndim != 2 or row >= len(rows) or rows.dtype.kind not in "fiu":
        raise InputRefused(f"{path}: no row {row} of numbers in an array of shape {rows.shape}")
    with np.errstate(over="ignore"):  # What float32 cannot hold is refused as infinite.
        embedding: npt.NDArray[np.float32] = rows[row].astype(np.float32)
    return embedding


async def _describe(client: Client, answer: Retrieved, title: str) -> _Neighbours:
    ids: Any = answer.ids.tolist() if isinstance(answer.ids, np.ndarray) else answer.ids
    attributes: dict[int | str, dict[str, AttributeValue]] = {}
    for start in range(0, len(ids), _GET_ITEMS_MAX):
        read = await client.get_items(ids[start : start + _GET_ITEMS_MAX])
        attributes |= {item.id: dict(item.attributes) for item in read.items}
    return _Neighbours(title=title, answer=answer, ids=ids, attributes=attributes)


def _show(found: _Neighbours, as_json: bool) -> None:
    scores = found.answer.scores.tolist()
    known = [found.attributes.get(each, {}) for each in found.ids]
    certificate = found.answer.certificate
    if as_json:
        items = [
            {"id": each, "score": score, "attributes": attributes}
            for each, score, attributes in zip(found.ids, scores, known, strict=True)
        ]
        print_json({"items": items, "certificate": certificate_as_values(certificate)})
        return
    names = _columns(known)
    rows = [
        (place, str(each), float(score), *(attributes.get(name, "") for name in names))
        for place, (each, score, attributes) in enumerate(
            zip(found.ids, scores, known, strict=True), start=1
        )
    ]
    print_table(found.title, ("#", "id", "score", *names), rows)
    print_line(certificate_in_words(certificate))


def _columns(known: Sequence[dict[str, AttributeValue]]) -> list[str]:
    """Names of the attributes that the items have, the most telling one first."""
    names = sorted({name for attributes in known for name in attributes})
    return sorted(names, key=lambda name: name != "title")
