"""Arrays as the messages of a batch, and back: the same for a call and for a stream."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rangefinder.answers import Ids, RetrievedBatch
from rangefinder.edge import wire
from rangefinder.edge.channel import REQUEST_BYTES_MAX
from rangefinder.errors import InvalidRequest
from rangefinder.v1.recommendation_pb2 import RetrieveBatchRequest, RetrieveBatchResponse

NO_IDS: Sequence[int] = ()


def rows_of(values: npt.ArrayLike, dimensions: int) -> npt.NDArray[np.float32]:
    """Embeddings as rows: one of shape (dimension,), or many. Raises InvalidRequest."""
    rows = np.asarray(values, np.float32)
    if rows.ndim != dimensions:
        shape = "(dimension,)" if dimensions == 1 else "(count, dimension)"
        raise InvalidRequest("query", f"shape {rows.shape}: give {shape}")
    # gRPC would refuse it without a reason, and beyond 2 GiB it would not even do that.
    if rows.nbytes > REQUEST_BYTES_MAX:
        raise InvalidRequest("query", f"{rows.nbytes >> 20} MiB in one request: send 16 at most")
    return rows


def batch_request(
    queries: npt.ArrayLike,
    item_count: int,
    *,
    search_width: int,
    exact: bool,
    excluded_ids: Sequence[Ids | Sequence[int]],
    minimum_coverage: float,
    release: str,
) -> RetrieveBatchRequest:
    return RetrieveBatchRequest(
        queries=wire.block_message(rows_of(queries, 2)),
        item_count=item_count,
        search_width=search_width,
        exact=exact,
        minimum_coverage=minimum_coverage,
        release=release,
        excluded_items=[wire.ids_message(ids) for ids in excluded_ids],
    )


def batch_of(answer: RetrieveBatchResponse) -> RetrievedBatch:
    return RetrievedBatch(
        ids=wire.ids_of(answer.items),
        scores=wire.scores_of(answer.scores),
        item_counts=np.array(answer.item_counts, np.int64),
        certificate=wire.certificate_of(answer.certificate),
    )
