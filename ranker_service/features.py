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
from functools import lru_cache

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

# Of requests that name their sources alike there are a few at a time.
_LAYOUTS_KEPT = 64


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

    names: tuple[str, ...]
    values: Floats  # Shape (candidates, features).
    default_counts: Counts  # Of each feature: values that were absent.


@dataclass(frozen=True, slots=True)
class _Layout:
    """What is computed for a request, and where the model's features stand in it."""

    sources: list[int]  # Columns of the source scores that the model looks at.
    item_features: list[int]  # And of the items' features.
    rows: Counts  # Of each feature; the last row, where it cannot be computed.


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
    own = tuple(names)
    layout = _layout(own, tuple(candidates.sources), tuple(candidates.item_feature_names))
    columns = _computed(candidates, layout).take(layout.rows, axis=0)
    is_absent = np.isnan(columns)
    np.minimum(np.maximum(columns, -_LARGEST, out=columns), _LARGEST, out=columns)
    np.copyto(columns, defaults[:, None], where=is_absent)
    return FeatureRows(own, np.ascontiguousarray(columns.T), is_absent.sum(axis=1))


@lru_cache(_LAYOUTS_KEPT)
def _layout(
    names: tuple[str, ...], sources: tuple[str, ...], item_features: tuple[str, ...]
) -> _Layout:
    wanted = {name.rpartition(".")[0] for name in names}
    looked_at = [place for place, source in enumerate(sources) if source in wanted]
    own = [place for place, name in enumerate(item_features) if f"{ITEM}.{name}" in names]
    computed = [
        RETRIEVAL_RANK,
        *(f"{sources[place]}.{view}" for view in VIEWS for place in looked_at),
        *(f"{ITEM}.{item_features[place]}" for place in own),
    ]
    row_of = {name: row for row, name in enumerate(computed)}
    rows = [row_of.get(name, len(computed)) for name in names]
    return _Layout(looked_at, own, np.array(rows, np.int64))


def _computed(candidates: CandidateColumns, layout: _Layout) -> Floats:
    """The rank of retrieval, each view of each source that is looked at, the items' features, NaN."""
    scores = np.ascontiguousarray(candidates.source_scores.T[layout.sources])
    source_count, count = scores.shape
    last_view = 1 + len(VIEWS) * source_count
    rows = np.empty((last_view + len(layout.item_features) + 1, count), np.float32)
    rows[0] = np.arange(1, count + 1)
    if source_count and count:
        # Quotients that float32 cannot hold become infinite, and are cut as all large ones are.
        with np.errstate(over="ignore"):
            _look(scores, rows[1:last_view].reshape(len(VIEWS), source_count, count))
    rows[last_view:-1] = candidates.item_features.T[layout.item_features]
    rows[-1] = np.nan
    return rows


def _look(source_scores: Floats, views: Floats) -> None:
    """Fill in the views of each source's scores, shape (sources, candidates); NaN where there is none.

    Sums are over sorted scores: the order of others changes no bit. Sources are looked at together
    where they can be: for so few numbers it is calls that cost.
    """
    rank, standard, relative, of_best, of_twentieth, share = views
    ordered, scores = np.sort(source_scores, axis=1), source_scores.astype(np.float64)
    marks = np.empty((5, len(scores), 1))
    for source, ascending in enumerate(ordered):
        known = ascending[: ascending.searchsorted(np.nan)]  # NaN is sorted to the end.
        marks[:, source, 0] = _marks(known.astype(np.float64))
        share[source] = len(known) / len(ascending)
        rank[source] = len(known) + 1 - known.searchsorted(source_scores[source], side="right")
    lowest, best, twentieth, middle, spread = marks
    np.copyto(rank, np.nan, where=np.isnan(scores))
    standard[:] = (scores - middle) / spread
    are_alike = best == lowest
    relative[:] = (scores - lowest) / np.where(are_alike, 1.0, best - lowest) + are_alike
    of_best[:] = scores / np.where(best > 0, best, np.nan)
    of_twentieth[:] = scores / np.where(twentieth > 0, twentieth, np.nan)


def _marks(known: Column) -> tuple[float, float, float, float, float]:
    """Lowest, best, twentieth, mean and deviation of ascending scores; NaN where there are none."""
    count = len(known)
    if not count:
        return (np.nan,) * 5
    lowest, best, twentieth = known[0], known[-1], known[-min(_TWENTIETH, count)]
    if not best > lowest:
        return lowest, best, twentieth, best, 1.0
    # As mean() and std() would, with fewer calls in between.
    middle = np.add.reduce(known) / count
    apart = known - middle
    return lowest, best, twentieth, middle, np.sqrt(np.add.reduce(apart * apart) / count)
