"""The client: asks a router over gRPC, NumPy in and out.

    async with Client("127.0.0.1:7000") as client:
        answer = await client.retrieve(embedding, item_count=20)
        print(answer.ids, answer.scores, answer.certificate.coverage)

Needs grpcio, protobuf and NumPy. Failures are raised as the errors of rangefinder.errors.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rangefinder.answers import Ids, Item, ItemsRead, Recommended, Retrieved, RetrievedBatch
from rangefinder.edge import wire
from rangefinder.edge.channel import open_channel
from rangefinder.edge.columns import vector_of
from rangefinder.edge.status import translated
from rangefinder.errors import InvalidRequest
from rangefinder.v1 import cluster_pb2, item_pb2, recommendation_pb2
from rangefinder.v1.cluster_pb2_grpc import ClusterServiceStub
from rangefinder.v1.item_pb2_grpc import ItemServiceStub
from rangefinder.v1.recommendation_pb2_grpc import RecommendationServiceStub

if TYPE_CHECKING:  # These stand in the type stubs alone.
    from rangefinder.v1.cluster_pb2_grpc import ClusterServiceAsyncStub
    from rangefinder.v1.item_pb2_grpc import ItemServiceAsyncStub
    from rangefinder.v1.recommendation_pb2_grpc import RecommendationServiceAsyncStub

NO_IDS: Sequence[int] = ()


class Client:
    """One router of a cluster. Use it as an async context manager, or call close()."""

    def __init__(self, address: str = "127.0.0.1:7000", *, deadline_s: float = 0.2) -> None:
        """address: host:port of a router. deadline_s: of calls that name no other."""
        self._deadline_s = deadline_s
        self._channel = open_channel(address)
        self._recommendations: RecommendationServiceAsyncStub = RecommendationServiceStub(self._channel)
        self._items: ItemServiceAsyncStub = ItemServiceStub(self._channel)
        self._cluster: ClusterServiceAsyncStub = ClusterServiceStub(self._channel)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def recommend(  # noqa: PLR0913 (one argument for each field of the request)
        self,
        user_id: str = "",
        item_count: int = 20,
        *,
        user_embedding: npt.ArrayLike | None = None,
        recent_ids: Ids | Sequence[int] = NO_IDS,
        excluded_ids: Ids | Sequence[int] = NO_IDS,
        exclude_seen: bool = False,
        candidate_count: int = 0,
        item_attributes: Sequence[str] = (),
        minimum_coverage: float = 0.0,
        release: str = "",
        pipeline: str = "",
        parameters: Mapping[str, str] | None = None,
        explain: bool = False,
        request_id: str = "",
        deadline_s: float | None = None,
    ) -> Recommended:
        """The best items for a user, known by id or given by an embedding or by recent items.

        Raises RangefinderError; UnknownUser where nothing can be proposed.
        """
        request = recommendation_pb2.RecommendRequest(
            request_id=request_id,
            user_id=user_id,
            item_count=item_count,
            candidate_count=candidate_count,
            exclude_seen=exclude_seen,
            minimum_coverage=minimum_coverage,
            release=release,
            explain=explain,
            pipeline=pipeline,
            parameters=parameters,
            item_attributes=item_attributes,
        )
        if user_embedding is not None:
            request.user_embedding.CopyFrom(vector_of(_rows(user_embedding, 1)))
        if len(recent_ids):
            request.recent_items.CopyFrom(wire.ids_message(recent_ids))
        if len(excluded_ids):
            request.excluded_items.CopyFrom(wire.ids_message(excluded_ids))
        answer = await self._call(self._recommendations.Recommend, request, deadline_s)
        return wire.recommended_of(answer)

    async def retrieve(
        self,
        query: npt.ArrayLike,
        item_count: int = 100,
        *,
        search_width: int = 0,
        exact: bool = False,
        excluded_ids: Ids | Sequence[int] = NO_IDS,
        minimum_coverage: float = 0.0,
        release: str = "",
        deadline_s: float | None = None,
    ) -> Retrieved:
        """The items nearest to `query`, of shape (dimension,). Raises RangefinderError."""
        request = recommendation_pb2.RetrieveRequest(
            query=vector_of(_rows(query, 1)),
            item_count=item_count,
            search_width=search_width,
            exact=exact,
            minimum_coverage=minimum_coverage,
            release=release,
        )
        if len(excluded_ids):
            request.excluded_items.CopyFrom(wire.ids_message(excluded_ids))
        answer = await self._call(self._recommendations.Retrieve, request, deadline_s)
        return Retrieved(
            ids=wire.ids_of(answer.items),
            scores=wire.scores_of(answer.scores),
            certificate=wire.certificate_of(answer.certificate),
        )

    async def retrieve_batch(
        self,
        queries: npt.ArrayLike,
        item_count: int = 100,
        *,
        search_width: int = 0,
        exact: bool = False,
        excluded_ids: Sequence[Ids | Sequence[int]] = (),
        minimum_coverage: float = 0.0,
        release: str = "",
        deadline_s: float | None = None,
    ) -> RetrievedBatch:
        """The items nearest to each of `queries`, of shape (count, dimension), count at most 1,024.

        excluded_ids: empty, or ids for each query. Raises RangefinderError.
        """
        request = recommendation_pb2.RetrieveBatchRequest(
            queries=wire.block_message(_rows(queries, 2)),
            item_count=item_count,
            search_width=search_width,
            exact=exact,
            minimum_coverage=minimum_coverage,
            release=release,
            excluded_items=[wire.ids_message(ids) for ids in excluded_ids],
        )
        answer = await self._call(self._recommendations.RetrieveBatch, request, deadline_s)
        return RetrievedBatch(
            ids=wire.ids_of(answer.items),
            scores=wire.scores_of(answer.scores),
            item_counts=np.array(answer.item_counts, np.int64),
            certificate=wire.certificate_of(answer.certificate),
        )

    async def get_items(
        self,
        ids: Ids | Sequence[int],
        *,
        with_embeddings: bool = False,
        release: str = "",
        deadline_s: float | None = None,
    ) -> ItemsRead:
        """Items by id, at most 1,000. Raises RangefinderError."""
        request = item_pb2.GetItemsRequest(
            items=wire.ids_message(ids), with_embeddings=with_embeddings, release=release
        )
        answer = await self._call(self._items.GetItems, request, deadline_s)
        return ItemsRead(
            items=[wire.item_of(item) for item in answer.items],
            unread_ids=wire.ids_of(answer.unread_items),
            certificate=wire.certificate_of(answer.certificate),
        )

    async def scan_items(
        self, *, key_start: int = 0, key_end: int = 0, with_embeddings: bool = False
    ) -> AsyncIterator[Item]:
        """Every item with key_start <= key < key_end, in key order; 0 and 0 is all of them.

        Raises RangefinderError where the range could not be read to its end.
        """
        request = item_pb2.ScanItemsRequest(
            key_start=key_start, key_end=key_end, with_embeddings=with_embeddings
        )
        with translated():
            async for page in self._items.ScanItems(request):
                for item in page.items:
                    yield wire.item_of(item)

    async def cluster_map(self, *, deadline_s: float | None = None) -> cluster_pb2.ClusterMap:
        """The map that the router serves under."""
        request = cluster_pb2.GetClusterMapRequest()
        answer = await self._call(self._cluster.GetClusterMap, request, deadline_s)
        cluster_map: cluster_pb2.ClusterMap = answer.cluster_map
        return cluster_map

    async def cluster_status(
        self, *, deadline_s: float | None = None
    ) -> cluster_pb2.GetClusterStatusResponse:
        """Every node and replica, as the router sees them."""
        request = cluster_pb2.GetClusterStatusRequest()
        answer = await self._call(self._cluster.GetClusterStatus, request, deadline_s)
        status: cluster_pb2.GetClusterStatusResponse = answer
        return status

    async def _call(self, method: Any, request: Any, deadline_s: float | None) -> Any:
        timeout_s = self._deadline_s if deadline_s is None else deadline_s
        with translated():
            return await method(request, timeout=timeout_s)


def _rows(values: npt.ArrayLike, dimensions: int) -> npt.NDArray[np.float32]:
    rows = np.asarray(values, np.float32)
    if rows.ndim != dimensions:
        shape = "(dimension,)" if dimensions == 1 else "(count, dimension)"
        raise InvalidRequest("query", f"shape {rows.shape}: give {shape}")
    return rows
