"""RecommendationService as far as retrieval goes: Retrieve, RetrieveBatch, and what a stream runs."""

import asyncio
from dataclasses import replace

import numpy as np

from rangefinder.cluster_map import ClusterMap
from rangefinder.deadline import Deadline
from rangefinder.edge.admission import CallLine
from rangefinder.edge.channel import ANSWER_BYTES_MAX
from rangefinder.edge.service import BidiStream, Call, Handler, Unary, ungrouped
from rangefinder.errors import InvalidRequest
from rangefinder.internal.v1.packed_pb2 import PackedRetrieveBatchResponse, PackedRetrieveResponse
from rangefinder.merge import NO_SCORE
from rangefinder.telemetry.logs import get_log
from rangefinder.telemetry.metrics import ProcessMetrics
from rangefinder.v1 import recommendation_pb2 as public
from rangefinder.v1.types_pb2 import Certificate
from router.batch import BlockOutcome, QueryBlock
from router.certificate import certificate_of, packed_ids, require_coverage
from router.coverage import Coverage, cover, of_all
from router.gatherer import Gatherer
from router.requests import (
    OBEYED_BATCH,
    OBEYED_RETRIEVE,
    Retrieval,
    batch_retrieval_of,
    retrieval_of,
)
from router.retrieve_stream import RetrieveStreams

# What a stream wraps an answer in is kept back; gRPC's own refusal of a larger one has no reason.
_BATCH_BYTES_MAX = ANSWER_BYTES_MAX - 64


class RetrievalService:
    """RPCs of rangefinder.v1.RecommendationService that need no ranking."""

    def __init__(
        self,
        cluster_map: ClusterMap,
        gatherer: Gatherer,
        batch_rows_max: int,
        line: CallLine,
        metrics: ProcessMetrics,
    ) -> None:
        self._map, self._gatherer, self._rows_max = cluster_map, gatherer, batch_rows_max
        self._shards = cluster_map.serving_shards
        self._partial = metrics.counter(
            "partial_answers", "Answers that missed a range, by the reason of it.", ("reason",)
        )
        self.streams = RetrieveStreams(self.run_batch, line)
        self._log = get_log()

    def handlers(self, default_deadline_s: float) -> dict[str, Handler]:
        self.streams.default_time_s = default_deadline_s
        return {
            "Retrieve": Unary(self.retrieve, OBEYED_RETRIEVE),
            "RetrieveBatch": Unary(self.retrieve_batch, OBEYED_BATCH),
            "RetrieveStream": BidiStream(self.streams.serve),
        }

    async def retrieve(self, request: public.RetrieveRequest, call: Call) -> PackedRetrieveResponse:
        """The items nearest to one embedding."""
        retrieval = retrieval_of(request, self._map, call.deadline)
        outcomes = [await self._gatherer.search(retrieval.block)]
        certificate = self._certify(retrieval, outcomes)
        hits = outcomes[0].hits
        count = hits.count(0)
        return PackedRetrieveResponse(
            items=packed_ids(hits.keys[0, :count], self._map.id_kind, outcomes[0].texts),
            scores=hits.scores[0, :count].tobytes(),
            certificate=certificate,
        )

    async def retrieve_batch(
        self, request: public.RetrieveBatchRequest, call: Call
    ) -> PackedRetrieveBatchResponse:
        """The items nearest to each of several embeddings."""
        return await self.run_batch(request, call.deadline)

    async def run_batch(
        self, request: public.RetrieveBatchRequest, deadline: Deadline
    ) -> PackedRetrieveBatchResponse:
        """Answer a batch, of a call or of a stream."""
        retrieval = batch_retrieval_of(request, self._map, deadline)
        blocks = _cut(retrieval.block, self._rows_max)
        if len(blocks) == 1:
            outcomes = [await self._gatherer.search(blocks[0])]
        else:
            outcomes = await ungrouped(self._search_all(blocks))
        certificate = self._certify(retrieval, outcomes)
        found = [outcome.hits.scores > NO_SCORE for outcome in outcomes]
        keys = [outcome.hits.keys[here] for outcome, here in zip(outcomes, found, strict=True)]
        scores = [outcome.hits.scores[here] for outcome, here in zip(outcomes, found, strict=True)]
        texts = {key: text for outcome in outcomes for key, text in outcome.texts.items()}
        response = PackedRetrieveBatchResponse(
            items=packed_ids(np.concatenate(keys), self._map.id_kind, texts),
            scores=np.concatenate(scores).tobytes(),
            item_counts=np.concatenate([here.sum(axis=1) for here in found]).tolist(),
            certificate=certificate,
        )
        if response.ByteSize() > _BATCH_BYTES_MAX:
            raise InvalidRequest(
                "item_count", "the answer exceeds 4 MiB: send fewer queries, or ask for less"
            )
        return response

    async def _search_all(self, blocks: list[QueryBlock]) -> list[BlockOutcome]:
        """Search the parts of one request; where one is refused, the others are dropped."""
        async with asyncio.TaskGroup() as group:
            parts = [
                group.create_task(self._gatherer.search(block), name="search-part") for block in blocks
            ]
        return [part.result() for part in parts]

    def count_missed(self, coverage: Coverage) -> None:
        """Count a partial answer, of whichever RPC."""
        for reason in {missed.reason for missed in coverage.missed} if coverage.missed else ():
            self._partial.labels(reason).inc()

    def _certify(self, retrieval: Retrieval, outcomes: list[BlockOutcome]) -> Certificate:
        """The certificate of one answer. Raises CoverageTooLow."""
        results = of_all([outcome.results for outcome in outcomes])
        coverage = cover(self._shards, results, self._gatherer.last_counts)
        self.count_missed(coverage)
        certificate = certificate_of(
            self._map,
            retrieval.block.group.release,
            coverage,
            (
                ("queue", max(outcome.queue_s for outcome in outcomes)),
                ("retrieval", max(outcome.retrieval_s for outcome in outcomes)),
                ("merge", max(outcome.merge_s for outcome in outcomes)),
            ),
            with_recall=retrieval.uses_default_width,
        )
        self._log.debug("searched", request_id=retrieval.request_id, coverage=coverage.share)
        require_coverage(coverage, retrieval.minimum_coverage, certificate)
        return certificate


def _cut(block: QueryBlock, rows_max: int) -> list[QueryBlock]:
    """The block in parts, so that a large one does not hold up the rest."""
    starts = range(0, len(block.queries), rows_max)
    return [
        replace(
            block,
            queries=block.queries[start : start + rows_max],
            excluded=block.excluded[start : start + rows_max],
        )
        for start in starts
    ]
