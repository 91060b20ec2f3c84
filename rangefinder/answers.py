"""What the client returns: columns as NumPy arrays, and the certificate that comes with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64] | list[str]  # By the kind of the cluster.
AttributeValue = float | bool | str | list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MissedRange:
    """A range of keys that an answer does not cover; key_end is at most 2^64."""

    key_start: int
    key_end: int
    item_count: int | None
    reason: str  # Such as REPLICA_UNAVAILABLE or DEADLINE_SPENT.


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """A way in which an answer is poorer than it could be."""

    stage: str  # Such as source:index, ranking or fallback.
    reason: str  # Such as DEADLINE_SPENT or UNKNOWN_USER.
    detail: str  # For people.


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What an answer rests on; see rangefinder.v1.Certificate."""

    map_epoch: int
    release: str
    item_count: int
    item_count_searched: int
    missed_ranges: tuple[MissedRange, ...]
    degradations: tuple[Degradation, ...] = ()  # In the order they were taken.
    estimated_recall: float | None
    stage_ms: Mapping[str, float]

    @property
    def coverage(self) -> float:
        """Share of the catalogue's items in the ranges that were searched, in [0, 1]."""
        if not self.missed_ranges:
            return 1.0
        return self.item_count_searched / self.item_count if self.item_count else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """The items nearest to one embedding, best first."""

    ids: Ids
    scores: npt.NDArray[np.float32]
    certificate: Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedBatch:
    """The items nearest to each of several embeddings: of the first query, then of the second, ..."""

    ids: Ids
    scores: npt.NDArray[np.float32]
    item_counts: npt.NDArray[np.int64]  # Items of each query.
    certificate: Certificate

    def of_query(self, place: int) -> tuple[Ids, npt.NDArray[np.float32]]:
        """Ids and scores of one query."""
        end = int(self.item_counts[: place + 1].sum())
        start = end - int(self.item_counts[place])
        return self.ids[start:end], self.scores[start:end]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceScore:
    """What one source thought of an item."""

    score: float
    rank: int  # From 1.


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why an item stands where it stands; scores and features are a ranker's, by name."""

    source_scores: Mapping[str, SourceScore]
    head_scores: Mapping[str, float]
    features: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """The best items for somebody, best first: columns of one length."""

    ids: Ids
    scores: npt.NDArray[np.float32]  # The ranker's where `is_ranked`, else the merged retrieval score.
    is_ranked: npt.NDArray[np.bool_]  # Ranked items come first.
    sources: list[tuple[str, ...]]  # That proposed each item.
    attributes: list[Mapping[str, AttributeValue]]  # Those asked for that each item has.
    explanations: list[Explanation]  # Empty where none were asked for.
    ranker_model: str  # Empty: nothing ranked.
    ranker_model_version: str
    request_id: str
    certificate: Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item of the catalogue."""

    id: int | str
    attributes: Mapping[str, AttributeValue]
    embedding: npt.NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsRead:
    """The items that exist, in the order asked for; unread ones may exist."""

    items: Sequence[Item]
    unread_ids: Ids
    certificate: Certificate
