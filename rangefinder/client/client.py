"""The client: asks the routers of a cluster over gRPC, NumPy in and out.

    async with Client("10.0.0.1:7000", "10.0.0.2:7000") as client:
        answer = await client.retrieve(embedding, item_count=20)
        print(answer.ids, answer.scores, answer.certificate.coverage)

Needs grpcio, protobuf and NumPy. Failures are raised as the errors of rangefinder.errors.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import numpy.typing as npt

from rangefinder.answers import Ids, Item, ItemsRead, Recommended, Retrieved, RetrievedBatch
from rangefinder.client.batch import NO_IDS, batch_of, batch_request, rows_of
from rangefinder.client.router import Rpc
from rangefinder.client.routers import Routers
from rangefinder.client.stream import RetrieveStream
from rangefinder.edge import wire
from rangefinder.edge.columns import vector_of
from rangefinder.edge.status import translated
from rangefinder.errors import InputRefused
from rangefinder.v1 import cluster_pb2, item_pb2, recommendation_pb2

DEFAULT_ADDRESS = "127.0.0.1:7000"


class Client:
    """The routers of a cluster. Use it as an async context manager, or call close().

    A user is always asked about at the same router, whose cache knows them, while that is there;
    everything else takes turns. What a router could not answer is asked once more, of another one
    where there is one, if that is safe, there is time left, and not too much of it happens.
    """

    def __init__(self, *addresses: str, deadline_s: float = 0.2) -> None:
        """addresses: host:port of each router. deadline_s: of calls that name no other."""
        if not all(isinstance(address, str) and address.strip() for address in addresses):
            example = 'Client("10.0.0.1:7000", "10.0.0.2:7000")'
            raise InputRefused(f"{addresses}: give host:port of each router, as in {example}")
        names = tuple(dict.fromkeys(addresses or (DEFAULT_ADDRESS,)))
        self._deadline_s = deadline_s
        self._routers = Routers(names)

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
        """Close every connection. What is under way fails."""
        await self._routers.close()

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
            request.user_embedding.CopyFrom(vector_of(rows_of(user_embedding, 1)))
        if len(recent_ids):
            request.recent_items.CopyFrom(wire.ids_message(recent_ids))
        if len(excluded_ids):
            request.excluded_items.CopyFrom(wire.ids_message(excluded_ids))
        answer = await self._call(lambda to: to.recommendations.Recommend, request, deadline_s, user_id)
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
            query=vector_of(rows_of(query, 1)),
            item_count=item_count,
            search_width=search_width,
            exact=exact,
            minimum_coverage=minimum_coverage,
            release=release,
        )
        if len(excluded_ids):
            request.excluded_items.CopyFrom(wire.ids_message(excluded_ids))
        answer = await self._call(lambda to: to.recommendations.Retrieve, request, deadline_s)
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
        request = batch_request(
            queries,
            item_count,
            search_width=search_width,
            exact=exact,
            excluded_ids=excluded_ids,
            minimum_coverage=minimum_coverage,
            release=release,
        )
        answer = await self._call(lambda to: to.recommendations.RetrieveBatch, request, deadline_s)
        return batch_of(answer)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[RetrieveStream]:
        """A stream for many batches, at less cost than a call for each."""
        stream = RetrieveStream(self._routers, self._deadline_s)
        try:
            yield stream
        finally:
            await stream.close()

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
        answer = await self._call(lambda to: to.items.GetItems, request, deadline_s)
        return ItemsRead(
            items=[wire.item_of(item) for item in answer.items],
            unread_ids=wire.ids_of(answer.unread_items),
            certificate=wire.certificate_of(answer.certificate),
        )

    async def scan_items(
        self, *, key_start: int = 0, key_end: int = 0, with_embeddings: bool = False
    ) -> AsyncGenerator[Item, None]:
        """Every item with key_start <= key < key_end, in key order; 0 and 0 is all of them.

        Raises RangefinderError where the range could not be read to its end.
        """
        request = item_pb2.ScanItemsRequest(
            key_start=key_start, key_end=key_end, with_embeddings=with_embeddings
        )
        call = self._routers.choose().connection().items.ScanItems(request)
        try:
            with translated():
                async for page in call:
                    for item in page.items:
                        yield wire.item_of(item)
        finally:
            call.cancel()  # Of a reader that stops early; else there is nothing left to cancel.

    async def cluster_map(self, *, deadline_s: float | None = None) -> cluster_pb2.ClusterMap:
        """The map that the router serves under."""
        request = cluster_pb2.GetClusterMapRequest()
        answer = await self._call(lambda to: to.clusters.GetClusterMap, request, deadline_s)
        cluster_map: cluster_pb2.ClusterMap = answer.cluster_map
        return cluster_map

    async def cluster_status(
        self, *, deadline_s: float | None = None
    ) -> cluster_pb2.GetClusterStatusResponse:
        """Every node and replica, as the router sees them."""
        request = cluster_pb2.GetClusterStatusRequest()
        answer = await self._call(lambda to: to.clusters.GetClusterStatus, request, deadline_s)
        status: cluster_pb2.GetClusterStatusResponse = answer
        return status

    async def _call(self, rpc: Rpc, request: Any, deadline_s: float | None, user_id: str = "") -> Any:
        allowed_s = self._deadline_s if deadline_s is None else deadline_s
        return await self._routers.ask(rpc, request, allowed_s, user_id)
