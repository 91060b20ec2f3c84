"""`rangefinder recommend`: the best items for a user."""

from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from rangefinder.answers import Explanation, Recommended
from rangefinder.cli.connection import as_ids, ask, asks_a_cluster
from rangefinder.cli.output import (
    certificate_as_values,
    certificate_in_words,
    print_json,
    print_line,
    print_table,
)
from rangefinder.client import Client
from rangefinder.errors import InputRefused, UnknownUser

_EXAMPLE = """
\b
Examples:
  rangefinder recommend --user 7
  rangefinder recommend --recent 42 --recent 17 --count 10 --json
"""

_ITEMS_MAX, _CANDIDATES_MAX = 1_000, 10_000


@click.command(epilog=_EXAMPLE)
@click.option("--user", default="", help="Id of the user, as in what the release was trained on.")
@click.option("--recent", multiple=True, help="Id of an item had lately, newest first; repeatable.")
@click.option("--exclude", multiple=True, help="Id that must not be returned; may be repeated.")
@click.option(
    "--count",
    type=click.IntRange(1, _ITEMS_MAX),
    default=20,
    show_default=True,
    help="Items to return at most.",
)
@click.option(
    "--candidates",
    type=click.IntRange(0, _CANDIDATES_MAX),
    default=0,
    show_default=True,
    help="Candidates to rank; 0: as the pipeline says.",
)
@click.option("--include-seen", is_flag=True, help="Also show what the user had, by the release.")
@click.option(
    "--attributes",
    default="title",
    show_default=True,
    help="Attributes to show, separated by commas; empty: none.",
)
@click.option("--explain", is_flag=True, help="Show rank and score in each source, and features.")
@asks_a_cluster
def command(
    user: str,
    recent: tuple[str, ...],
    exclude: tuple[str, ...],
    count: int,
    candidates: int,
    include_seen: bool,
    attributes: str,
    explain: bool,
    address: str,
    deadline_s: float,
    as_json: bool,
) -> None:
    """Show the best items for a user, where each comes from, and what the answer rests on."""
    if not user and not recent:
        raise click.UsageError("give --user, --recent, or both")
    names = [name.strip() for name in attributes.split(",") if name.strip()]

    async def work(client: Client) -> Recommended:
        return await client.recommend(
            _as_utf8(user),
            count,
            recent_ids=await as_ids(client, recent) if recent else (),
            excluded_ids=await as_ids(client, exclude) if exclude else (),
            exclude_seen=not include_seen,
            candidate_count=candidates,
            item_attributes=names,
            explain=explain,
        )

    found = ask(address, deadline_s, work)
    if as_json:
        print_json(_as_values(found))
        return
    _show(found, _title(found, user, recent), names)


def _title(found: Recommended, user: str, recent: tuple[str, ...]) -> str:
    """Says what stands in the table; an unknown user's is not taken for one that fits the user."""
    who = f"user {user}" if user else f"somebody who had {', '.join(recent)}"
    taken = {each.stage: each.reason for each in found.certificate.degradations}
    if "fallback" in taken:
        return f"popular items, for the release knows nothing of {who}"
    if taken.get("source:index") == UnknownUser.reason:
        return f"recommended after {', '.join(recent)}, for the release knows nothing of {who}"
    return f"recommended for {who}"


def _as_utf8(user: str) -> str:
    try:
        user.encode()
    except UnicodeEncodeError:
        raise InputRefused(f"--user {user!r} is not UTF-8") from None
    return user


def _show(found: Recommended, title: str, names: Sequence[str]) -> None:
    known = [name for name in names if any(name in each for each in found.attributes)]
    explained = ["why"] if found.explanations else []
    rows = []
    for place, each in enumerate(_ids(found)):
        attributes = [found.attributes[place].get(name, "") for name in known]
        score, is_ranked = float(found.scores[place]), "yes" if found.is_ranked[place] else "no"
        why = [_in_words(found.explanations[place])] if explained else []
        sources = ", ".join(found.sources[place])
        rows.append((place + 1, str(each), *attributes, score, is_ranked, sources, *why))
    print_table(title, ("#", "id", *known, "score", "ranked", "sources", *explained), rows)
    if found.ranker_model:
        print_line(f"ranked by {found.ranker_model} {found.ranker_model_version}")
    print_line(certificate_in_words(found.certificate))


def _in_words(explanation: Explanation) -> str:
    parts = [
        f"{source} #{each.rank} ({each.score:.4g})"
        for source, each in explanation.source_scores.items()
    ]
    parts += [f"{name}={value:.4g}" for name, value in sorted(explanation.features.items())]
    return ", ".join(parts)


def _ids(found: Recommended) -> list[int] | list[str]:
    return found.ids.tolist() if isinstance(found.ids, np.ndarray) else found.ids


def _as_values(found: Recommended) -> dict[str, Any]:
    items: list[dict[str, Any]] = [
        {
            "id": each,
            "score": float(found.scores[place]),
            "ranked": bool(found.is_ranked[place]),
            "sources": list(found.sources[place]),
            "attributes": dict(found.attributes[place]),
        }
        for place, each in enumerate(_ids(found))
    ]
    for item, explanation in zip(items, found.explanations, strict=False):
        item["explanation"] = _explanation_as_values(explanation)
    return {
        "request_id": found.request_id,
        "items": items,
        "ranker_model": found.ranker_model,
        "ranker_model_version": found.ranker_model_version,
        "certificate": certificate_as_values(found.certificate),
    }


def _explanation_as_values(explanation: Explanation) -> dict[str, Any]:
    return {
        "source_scores": {
            source: {"score": each.score, "rank": each.rank}
            for source, each in explanation.source_scores.items()
        },
        "head_scores": dict(explanation.head_scores),
        "features": {
            name: None if np.isnan(value) else value for name, value in explanation.features.items()
        },
    }
