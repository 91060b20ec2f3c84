"""Candidate lists of held-out users, made as the router makes them. Pure.

The index is taken for perfect: its proposals are those of an exact search, whose recall is near enough.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rangefinder.candidates import (
    CANDIDATE_COUNT,
    INDEX,
    ITEM_TO_ITEM,
    POPULARITY,
    QUOTAS,
    SEED_COUNT_MAX,
    WEIGHTS,
    Candidates,
    Proposals,
    Scores,
    merge_candidates,
    similar_items,
)
from rangefinder.item_tables import ItemTables, Places
from training.best import best_items
from training.factors import Factors
from training.held_out import LIST_LENGTH, HeldOutUsers
from training.interactions import Codes
from training.ranking_lists import RankingLists

MERGED = "merged"  # The order that candidates have before they are ranked.

Advance = Callable[[int], None]  # Told how many users were done.


def ranking_lists(
    held_out: HeldOutUsers,
    factors: Factors,
    tables: ItemTables,
    advance: Advance = lambda count: None,
) -> RankingLists:
    """A list for each user: factors and tables are of the part that was not held out."""
    users, relevant = held_out.users, held_out.relevant
    lists, labels = [], []
    by_index = best_items(factors.users, factors.items, held_out.histories, users, QUOTAS[INDEX])
    for user, own, best in zip(users.tolist(), relevant, by_index, strict=True):
        history = held_out.histories.of(user).astype(np.int64)
        candidates = _candidates(tables, history, *best)
        lists.append(candidates)
        labels.append(_are_in(candidates.keys, tables.keys[own]))
        advance(1)
    counts = np.array([len(own) for own in relevant], np.int64)
    return RankingLists(lists=lists, labels=labels, relevant_counts=counts, tables=tables)


def ndcg_by_source(held_out: HeldOutUsers, lists: RankingLists) -> dict[str, float]:
    """Mean NDCG@20 of each source alone, and of the merged order before any ranking."""
    tables = lists.tables
    histories = [held_out.histories.of(user) for user in held_out.users.tolist()]
    sources = {
        source: held_out.ndcg(_of_source(tables, each, source) for each in lists.lists)
        for source in (INDEX, ITEM_TO_ITEM)
    }
    popular = held_out.ndcg(popular_items(tables, had, LIST_LENGTH)[0] for had in histories)
    merged = held_out.ndcg(tables.places_of(each.keys) for each in lists.lists)
    return {POPULARITY: popular, **sources, MERGED: merged}


def _of_source(tables: ItemTables, candidates: Candidates, source: str) -> Places:
    """What the source alone would recommend: its first twenty are always in the merged list."""
    ranks = candidates.source_ranks[:, candidates.sources.index(source)]
    is_first = (ranks > 0) & (ranks <= LIST_LENGTH)
    keys = candidates.keys[is_first][np.argsort(ranks[is_first])]
    return tables.places_of(keys)


def _candidates(tables: ItemTables, history: Places, places: Places, scores: Scores) -> Candidates:
    """The merged list of one user, as rangefinder/candidates.py says it is made."""
    similar = similar_items(
        tables.neighbours,
        tables.neighbour_scores,
        history[:SEED_COUNT_MAX],
        history,
        QUOTAS[ITEM_TO_ITEM],
    )
    parts = {
        INDEX: (places, scores),
        ITEM_TO_ITEM: similar,
        POPULARITY: popular_items(tables, history, QUOTAS[POPULARITY]),
    }
    proposals = [
        Proposals(source, tables.keys[found], values, WEIGHTS[source])
        for source, (found, values) in parts.items()
    ]
    return merge_candidates(proposals, CANDIDATE_COUNT)


def popular_items(tables: ItemTables, history: Places | Codes, count: int) -> tuple[Places, Scores]:
    """The most popular items that are not in a history."""
    first = tables.popular[: count + len(history)]
    ranks = np.flatnonzero(~_are_in(first, np.sort(history)))[:count]
    return first[ranks].astype(np.int64), tables.popular_scores[ranks]


def _are_in(values: npt.NDArray[Any], ascending: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """np.isin for few values: it takes a tenth of the time."""
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    is_in: npt.NDArray[np.bool_] = ascending[places] == values
    return is_in
