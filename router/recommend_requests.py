"""RecommendRequest as a value: every field checked, each fault named with what would be right."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rangefinder.cluster_map import ClusterMap, Release
from rangefinder.errors import InvalidRequest
from rangefinder.keys import Keys
from rangefinder.user_tables import USER_ID_BYTES_MAX
from rangefinder.v1 import recommendation_pb2 as public
from router.pipeline import CANDIDATES_MAX, RECENT_MAX, Pipeline, pipeline_of
from router.requests import (
    EXCLUDED_MAX,
    in_range,
    keys_of_ids,
    minimum_coverage_of,
    query_of,
    require_request_id,
)

# Fields that are obeyed; others are refused where they are set.
OBEYED_RECOMMEND = frozenset(
    (
        *("request_id", "user_id", "user_embedding", "recent_items", "item_count", "candidate_count"),
        *("excluded_items", "exclude_seen", "minimum_coverage", "release", "explain", "pipeline"),
        *("parameters", "item_attributes"),
    )
)

DEFAULT_ITEM_COUNT = 20
ITEMS_MAX = 1_000
ATTRIBUTES_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A checked RecommendRequest."""

    request_id: str  # Made here where the caller named none.
    user_id: str
    user_embedding: npt.NDArray[np.float32] | None  # Shape (1, dimension).
    recent: Keys  # Newest first.
    item_count: int
    candidate_count: int
    excluded: Keys
    exclude_seen: bool
    minimum_coverage: float
    release: Release
    explain: bool
    pipeline: Pipeline
    attributes: frozenset[str]


def wish_of(
    request: public.RecommendRequest, cluster_map: ClusterMap, pipelines: Mapping[str, Pipeline]
) -> Wish:
    """Raises InvalidRequest, WrongDimension, UnknownRelease, ReleaseNotServed."""
    release, kind = cluster_map.release(request.release), cluster_map.id_kind
    pipeline = pipeline_of(pipelines, request.pipeline).overridden(request.parameters)
    require_request_id(request.request_id)
    item_count = in_range("item_count", request.item_count or DEFAULT_ITEM_COUNT, 1, ITEMS_MAX)
    return Wish(
        request_id=request.request_id or f"{random.getrandbits(64):016x}",
        user_id=_user_id(request.user_id),
        user_embedding=_embedding(request, release),
        recent=keys_of_ids(request.recent_items, kind, "recent_items", RECENT_MAX),
        item_count=item_count,
        candidate_count=_candidate_count(request.candidate_count, item_count, pipeline),
        excluded=keys_of_ids(request.excluded_items, kind, "excluded_items", EXCLUDED_MAX),
        exclude_seen=request.exclude_seen,
        minimum_coverage=minimum_coverage_of(request.minimum_coverage),
        release=release,
        explain=request.explain,
        pipeline=pipeline,
        attributes=_attributes(request.item_attributes),
    )


def _user_id(user_id: str) -> str:
    size = len(user_id.encode())
    if size > USER_ID_BYTES_MAX:
        raise InvalidRequest("user_id", f"{size} bytes: at most {USER_ID_BYTES_MAX}")
    return user_id


def _embedding(request: public.RecommendRequest, release: Release) -> npt.NDArray[np.float32] | None:
    if not request.HasField("user_embedding"):
        return None
    return query_of(request.user_embedding, release, "user_embedding.values")


def _candidate_count(wanted: int, item_count: int, pipeline: Pipeline) -> int:
    if wanted == 0:
        return max(item_count, pipeline.candidate_count)
    return in_range("candidate_count", wanted, item_count, CANDIDATES_MAX)


def _attributes(names: Sequence[str]) -> frozenset[str]:
    if len(names) > ATTRIBUTES_MAX:
        raise InvalidRequest("item_attributes", f"{len(names)} names: at most {ATTRIBUTES_MAX}")
    if not all(names):
        raise InvalidRequest("item_attributes", "a name is empty")
    return frozenset(names)
