"""Candidates of several sources as one list, and items near others by a table. Pure.

Training and serving share this, so that a ranker meets the lists that it was trained on. Order is score
descending, then key ascending; a key counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rangefinder.keys import Keys

Scores = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
AnyId = TypeVar("AnyId", np.uint64, np.int64)

_NO_KEYS: Keys = np.empty(0, np.uint64)
_NO_RANKS: Places = np.empty(0, np.int64)

# Reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009): their constant.
_FUSION_RANKS = 60

# Up to so many places for each one found, a column of all places is quicker than sorting; so many in
# it are looked at while one is sorted.
_DENSE_FACTOR = 32

# Of lengths and weights of sources there are a few, but for short lists.
_TERMS_KEPT = 256

# Names of the sources that a release brings.
INDEX, ITEM_TO_ITEM, POPULARITY = "index", "item_to_item", "popularity"

# What a pipeline does unless it is configured otherwise: rankers are trained on lists made so.
QUOTAS = {INDEX: 500, ITEM_TO_ITEM: 500, POPULARITY: 100}  # Items that each source proposes at most.
WEIGHTS = {INDEX: 1.0, ITEM_TO_ITEM: 1.0, POPULARITY: 0.1}  # Of each source in the merged order.
SEED_COUNT_MAX = 256  # Recent items that the item-to-item source starts from, the newest ones.
CANDIDATE_COUNT = 500  # Ranked for a request.


@dataclass(frozen=True, slots=True)
class Proposals:
    """What one source proposes, best first: columns of one length, no key twice."""

    source: str
    keys: Keys
    scores: Scores  # On the source's own scale; greater is better.
    weight: float = 1.0  # Of the source in the merged order.


@dataclass(frozen=True, slots=True)
class Candidates:
    """The merged list, best-retrieved first."""

    keys: Keys  # Shape (candidates,).
    scores: Scores  # Merged retrieval scores, descending.
    sources: tuple[str, ...]
    source_scores: Scores  # Shape (candidates, sources); NaN where a source did not propose it.
    source_ranks: npt.NDArray[np.int32]  # Beside them, from 1; 0 where not proposed.


def merge_candidates(parts: Sequence[Proposals], count: int, excluded: Keys = _NO_KEYS) -> Candidates:
    """The `count` best by reciprocal rank fusion: each source adds weight / (60 + rank).

    excluded: ascending keys that are left out, whoever proposes them.
    """
    keys, row_of = _distinct([part.keys for part in parts])
    terms = _terms(tuple((len(part.keys), part.weight) for part in parts))
    merged = np.bincount(row_of, terms.shares, len(keys))
    order = np.argsort(-merged, kind="stable")  # Keys ascend: ties keep their order.
    if len(excluded):
        kept = ~is_among(keys, excluded)
        order = order if kept.all() else order[kept[order]]
    order = order[:count]
    cells = row_of * len(parts) + terms.columns
    shape = (len(keys), len(parts))
    scores, ranks = np.full(shape, np.nan, np.float32), np.zeros(shape, np.int32)
    if parts:
        scores.put(cells, np.concatenate([part.scores for part in parts]))
        ranks.put(cells, terms.ranks)
    return Candidates(
        keys=keys[order],
        scores=merged[order].astype(np.float32),
        sources=tuple(part.source for part in parts),
        source_scores=scores[order],
        source_ranks=ranks[order],
    )


@dataclass(frozen=True, slots=True)
class _Terms:
    """Of each proposal of several sources, one source after another."""

    columns: Places  # The number of its source.
    ranks: npt.NDArray[np.int32]
    shares: npt.NDArray[np.float64]  # What it adds to its item.


@lru_cache(_TERMS_KEPT)
def _terms(sources: tuple[tuple[int, float], ...]) -> _Terms:
    """Of sources that propose so many and weigh so much: mostly as many as their quota."""
    lengths = [length for length, _ in sources]
    ranks = np.concatenate([_NO_RANKS, *(np.arange(1, length + 1) for length in lengths)])
    weights = np.repeat([weight for _, weight in sources], lengths)
    columns = np.repeat(np.arange(len(sources)), lengths)
    return _Terms(columns, ranks.astype(np.int32), weights / (_FUSION_RANKS + ranks))


def _distinct(columns: Sequence[Keys]) -> tuple[Keys, Places]:
    """The keys of all columns, each once and ascending, and the place there of every one given.

    As np.unique would, which does more than is needed here, and this is done for every request.
    """
    given = np.concatenate([_NO_KEYS, *columns])
    order = np.argsort(given, kind="stable")  # Half the time of the default for so many.
    ascending = given[order]
    is_first = np.ones(len(given), np.bool_)
    is_first[1:] = ascending[1:] != ascending[:-1]
    row_of = np.empty(len(given), np.int64)
    row_of[order] = np.cumsum(is_first) - 1
    return ascending[is_first], row_of


def distinct(values: npt.NDArray[AnyId]) -> npt.NDArray[AnyId]:
    """Each value once, ascending: np.unique with fewer calls in between."""
    ascending = np.sort(values)
    is_repeated = ascending[1:] == ascending[:-1]
    return np.delete(ascending, np.flatnonzero(is_repeated)) if is_repeated.any() else ascending


def is_among(values: npt.NDArray[Any], ascending: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each value is one of some ascending ones: np.isin without sorting them anew."""
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    places = ascending.searchsorted(values)
    found: npt.NDArray[np.bool_] = ascending.take(places, mode="clip") == values
    return found


def similar_items(
    neighbours: npt.NDArray[np.int32],
    neighbour_scores: Scores,
    seeds: Places,
    excluded: Places,
    count: int,
) -> tuple[Places, Scores]:
    """The `count` places nearest to the seeds: each seed adds its similarity to each of its neighbours.

    neighbours, neighbour_scores: see item_tables.py. excluded: places never returned.
    """
    found = neighbours[seeds].ravel()
    similarities = neighbour_scores[seeds].ravel()
    is_item = found >= 0
    if not is_item.all():
        found, similarities = found[is_item], similarities[is_item]
    if _is_dense(len(neighbours), len(found)):
        places, scores = _sums_of_all(found, similarities, excluded, len(neighbours))
    else:
        places, scores = _sums_of_found(found, similarities, excluded)
    return _best(places, scores, count)


def similar_effort(place_count: int, found_count: int) -> int:
    """About how long similar_items takes for so many neighbours, as a number of ids that are sorted."""
    if _is_dense(place_count, found_count):
        return (place_count + found_count) // _DENSE_FACTOR
    return found_count


def _is_dense(place_count: int, found_count: int) -> bool:
    return place_count <= _DENSE_FACTOR * found_count


def _sums_of_all(
    found: npt.NDArray[np.int32], similarities: Scores, excluded: Places, place_count: int
) -> tuple[Places, npt.NDArray[np.float64]]:
    """By a column of every place: a fifth of the time where many of them are found."""
    is_kept = np.zeros(place_count, np.bool_)
    is_kept[found] = True
    is_kept[excluded] = False
    places = np.flatnonzero(is_kept)
    sums = np.asarray(np.bincount(found, similarities, place_count), np.float64)
    return places, sums[places]


def _sums_of_found(
    found: npt.NDArray[np.int32], similarities: Scores, excluded: Places
) -> tuple[Places, npt.NDArray[np.float64]]:
    """By sorting: what is not found costs nothing."""
    places, row_of = np.unique(found, return_inverse=True)
    scores = np.asarray(np.bincount(row_of, similarities, len(places)), np.float64)
    kept = ~np.isin(places, excluded)
    return places[kept].astype(np.int64), scores[kept]


def _best(places: Places, scores: npt.NDArray[np.float64], count: int) -> tuple[Places, Scores]:
    """The `count` best of ascending places, by score, then by place."""
    if 0 < count < len(places):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        kept = scores >= least  # Ties at the end are cut after sorting.
        places, scores = places[kept], scores[kept]
    order = np.argsort(-scores, kind="stable")[:count]
    return places[order], scores[order].astype(np.float32)
