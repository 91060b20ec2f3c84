"""A batch request that is too large for one message travels in parts; they fare as one."""

import asyncio
import time

import numpy as np
import pytest

from rangefinder.concurrency_limit import ConcurrencyLimit
from rangefinder.deadline import Deadline
from rangefinder.edge.admission import CallLine
from rangefinder.errors import Overloaded
from rangefinder.internal.v1.packed_pb2 import PackedRetrieveBatchResponse
from rangefinder.telemetry.metrics import ProcessMetrics
from rangefinder.v1.recommendation_pb2 import RetrieveBatchRequest
from rangefinder.v1.types_pb2 import VectorBlock
from router import gatherer as gatherer_module
from router.retrieval import RetrievalService
from tests.unit.fake_nodes import FakeCluster, cluster_map


def run(cluster: FakeCluster, query_count: int) -> "asyncio.Task[PackedRetrieveBatchResponse]":
    """A request for so many queries, each a part of its own."""
    limit = ConcurrencyLimit(time.monotonic(), limit_min=1, limit_max=1, tolerated_s=1.0)
    service = RetrievalService(cluster_map(), cluster.gatherer, 1, CallLine(limit), ProcessMetrics())
    queries = np.array([[query, 0] for query in range(query_count)], "<f4")
    block = VectorBlock(float32_le=queries.tobytes(), count=query_count)
    request = RetrieveBatchRequest(queries=block, item_count=10)
    work = service.run_batch(request, Deadline.after(30.0, time.monotonic))
    return asyncio.create_task(work, name="run-batch")


async def test_where_one_part_is_refused_the_others_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The caller is told why, and neither nodes nor the queue keep anything of it."""
    monkeypatch.setattr(gatherer_module, "_WAITING_ROWS_MAX", 1)
    cluster = FakeCluster(batch_rows_max=1)
    asked = run(cluster, 3)  # One is sent, one waits, one is too many.
    with pytest.raises(Overloaded):
        await asked
    assert ([1], [1]) == (cluster.a.cancelled, cluster.b.cancelled)
    assert (1, 1, True) == (cluster.a.sent.qsize(), cluster.b.sent.qsize(), cluster.is_idle)


@pytest.mark.parametrize("query_count", [1, 3])
async def test_parts_are_answered_as_one(query_count: int) -> None:
    """Each query has its items, in order."""
    cluster = FakeCluster(batch_rows_max=1)
    asked = run(cluster, query_count)
    for _ in range(query_count):
        await cluster.answer_next()
    answer = await asked
    assert [4] * query_count == list(answer.item_counts)
    assert [0.0, -1.0, -2.0, -3.0] * query_count == np.frombuffer(answer.scores, "<f4").tolist()
