"""What a model sees of a candidate list, a row for each candidate. Training and serving share it. Pure.

    retrieval.rank       place in the merged list, from 1
    <source>.rank        1 + candidates that the source scored higher
    <source>.standard    score less the mean, by the standard deviation, of what the source proposed
    <source>.relative    from 0, the source's lowest score in the list, to 1, its best
    <source>.of_best     score / the source's best score; absent where that is not positive
    <source>.of_twentieth    score / the source's twentieth score, or its last; absent as above
    <source>.share       candidates that the source proposed / candidates
    item.<feature>       what is known of the item

Scores as they are grow with the user's history, which is shorter where the model is trained than where
it serves. So all are taken relative to the list of the same request.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Column = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

RETRIEVAL_RANK = "retrieval.rank"
ITEM = "item"
VIEWS = ("rank", "standard", "relative", "of_best", "of_twentieth", "share")

# Where a list of twenty is looked at, its last place is what a candidate has to beat.
_TWENTIETH = 20

# Quotients may exceed float32; beyond this they all say the same.
_LARGEST = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateColumns:
    """The candidates of one request, best-retrieved first."""

    sources: Sequence[str]
    source_scores: Floats  # Shape (candidates, sources); NaN where a source did not propose it.
    item_feature_names: Sequence[str]
    item_features: Floats  # Shape (candidates, item features); NaN where unknown.


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """What the model is given, every value finite, and how much of it is default."""

    values: Floats  # Shape (candidates, features).
    default_counts: Counts  # Of each feature: values that were absent.


def known_features(sources: Sequence[str], item_features: Sequence[str]) -> frozenset[str]:
    """Names of all features that can be computed from these."""
    return frozenset(
        [
            RETRIEVAL_RANK,
            *(f"{source}.{view}" for source in sources for view in VIEWS),
            *(f"{ITEM}.{name}" for name in item_features),
        ]
    )


def feature_rows(candidates: CandidateColumns, names: Sequence[str], defaults: Floats) -> FeatureRows:
    """The features of these names. What cannot be known takes its default: shape (features,)."""
    count = len(candidates.source_scores)
    columns = np.full((len(names), count), np.nan)
    places = {name: place for place, name in enumerate(names)}
    if RETRIEVAL_RANK in places:
        columns[places[RETRIEVAL_RANK]] = np.arange(1, count + 1)
    for source, scores in zip(candidates.sources, candidates.source_scores.T, strict=True):
        wanted = [(view, places[name]) for view in VIEWS if (name := f"{source}.{view}") in places]
        if wanted:
            _look(scores.astype(np.float64), wanted, columns)
    for feature, values in zip(candidates.item_feature_names, candidates.item_features.T, strict=True):
        if (name := f"{ITEM}.{feature}") in places:
            columns[places[name]] = values
    is_absent = np.isnan(columns)
    values = np.where(is_absent, defaults[:, None], np.clip(columns, -_LARGEST, _LARGEST))
    return FeatureRows(np.ascontiguousarray(values.T, np.float32), is_absent.sum(axis=1))


def _look(scores: Column, wanted: Sequence[tuple[str, int]], columns: Column) -> None:
    """Fill in one source's columns. Sums are over sorted scores: the order of others changes no bit."""
    ordered = np.sort(scores)[: len(scores) - np.count_nonzero(np.isnan(scores))]
    for view, place in wanted:
        if view == "share":
            columns[place] = len(ordered) / max(len(scores), 1)
        elif len(ordered):
            columns[place] = _view(view, scores, ordered)


def _view(view: str, scores: Column, ordered: Column) -> Column:
    """One view of a source's scores; `ordered` holds those that are known, ascending."""
    lowest, best = ordered[0], ordered[-1]
    looked = np.full(len(scores), np.nan)
    match view:
        case "rank":
            higher_count = len(ordered) - np.searchsorted(ordered, scores, side="right")
            looked = np.where(np.isnan(scores), np.nan, higher_count + 1.0)
        case "standard":
            middle, spread = (ordered.mean(), ordered.std()) if best > lowest else (best, 1.0)
            looked = (scores - middle) / spread
        case "relative":
            looked = (scores - lowest) / (best - lowest) if best > lowest else scores - best + 1
        case "of_best" if best > 0:
            looked = scores / best
        case "of_twentieth" if (twentieth := ordered[-min(_TWENTIETH, len(ordered))]) > 0:
            looked = scores / twentieth
    return looked
