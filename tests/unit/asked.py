"""Requests for tests of what is checked in them: well formed, but for what a test changes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rangefinder.cluster_map import ClusterMap, Node, Release, ReleaseState, Shard
from rangefinder.deadline import Deadline
from rangefinder.errors import InvalidRequest
from rangefinder.keys import IdKind
from rangefinder.metric import Metric
from rangefinder.v1.recommendation_pb2 import RetrieveBatchRequest, RetrieveRequest
from rangefinder.v1.types_pb2 import Vector, VectorBlock
from router.requests import Retrieval, batch_retrieval_of, retrieval_of

DIMENSION = 3
DEADLINE = Deadline.after(1.0, lambda: 50.0)

MAP = ClusterMap(
    epoch=1,
    cluster="test",
    id_kind=IdKind.INTEGER,
    active_release="r-1",
    shards=(Shard(name="s-0", key_start=0, key_end=2**64),),
    nodes=(Node(name="node-0", address="a:1"),),
    releases=(
        Release(name="r-1", dimension=DIMENSION, metric=Metric.COSINE),
        Release(name="r-2", dimension=4, metric=Metric.COSINE),
        Release(name="r-3", dimension=4, metric=Metric.L2, state=ReleaseState.LOADING),
    ),
)
TEXT_MAP = replace(MAP, id_kind=IdKind.TEXT)


def single(cluster_map: ClusterMap = MAP, **fields: Any) -> Retrieval:
    fields.setdefault("query", Vector(values=[1, 2, 3]))
    return retrieval_of(RetrieveRequest(**fields), cluster_map, DEADLINE)


def block(rows: int, dimension: int = DIMENSION, value: float = 1.0) -> VectorBlock:
    values = np.full((rows, dimension), value, "<f4")
    return VectorBlock(float32_le=values.tobytes(), count=rows)


def batch(cluster_map: ClusterMap = MAP, **fields: Any) -> Retrieval:
    fields.setdefault("queries", block(2))
    return batch_retrieval_of(RetrieveBatchRequest(**fields), cluster_map, DEADLINE)


def field_refused(act: Callable[[], object]) -> str:
    """The field that an InvalidRequest names."""
    with pytest.raises(InvalidRequest) as refused:
        act()
    assert str(refused.value).startswith(f"{refused.value.violation.field}: ")
    assert len(refused.value.violation.description) > 5
    return refused.value.violation.field
