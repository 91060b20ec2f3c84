"""Recommend: who asks, what the sources propose, how a ranker orders it, and what that rests on."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rangefinder.candidates import Candidates
from rangefinder.cluster_map import ClusterMap
from rangefinder.deadline import Deadline
from rangefinder.edge.channel import ANSWER_BYTES_MAX
from rangefinder.edge.service import Call, Handler, Unary
from rangefinder.errors import (
    CoverageTooLow,
    DeadlineSpent,
    InvalidRequest,
    Overloaded,
    UnknownUser,
)
from rangefinder.telemetry.logs import get_log
from rangefinder.telemetry.metrics import ProcessMetrics
from rangefinder.v1 import recommendation_pb2 as public
from rangefinder.v1.types_pb2 import Certificate
from router.certificate import certificate_of, require_coverage
from router.coverage import Coverage, cover, unsearched
from router.degradation import FALLBACK, FEATURES, Degradation, of_source
from router.gatherer import Gatherer
from router.items import ItemService
from router.pipeline import Pipeline
from router.ranker_link import RankOrder
from router.rankers import Rankers
from router.ranking import Ranking, in_order
from router.recommend_answer import Ordered, add_attributes, add_items, ids_of_items
from router.recommend_requests import OBEYED_RECOMMEND, Wish, wish_of
from router.sources import Found, Sources
from router.tables import NO_PLACES, ReleaseTables, Taste

_NO_TABLES = ReleaseTables()


@dataclass(slots=True)
class _Course:
    """One request on its way: its stages, and the rungs taken, in their order."""

    wish: Wish
    timings: list[tuple[str, float]] = field(default_factory=list)
    degradations: list[Degradation] = field(default_factory=list)

    def end_stage(self, stage: str, began_s: float) -> None:
        self.timings.append((stage, time.monotonic() - began_s))


class RecommendationService:
    """The Recommend of rangefinder.v1.RecommendationService."""

    def __init__(
        self,
        cluster_map: ClusterMap,
        gatherer: Gatherer,
        items: ItemService,
        rankers: Rankers,
        tables: Mapping[str, ReleaseTables],
        pipelines: Mapping[str, Pipeline],
        count_missed: Callable[[Coverage], None],
        metrics: ProcessMetrics,
    ) -> None:
        self._map, self._gatherer, self._items = cluster_map, gatherer, items
        self._shards, self._count_missed = cluster_map.serving_shards, count_missed
        self._rankers, self._tables, self._pipelines = rankers, tables, pipelines
        self._sources = Sources(cluster_map, gatherer)
        self._degraded = metrics.counter(
            "degradations", "Rungs taken by recommendations, by stage and reason.", ("stage", "reason")
        )
        self._log = get_log()

    def handlers(self) -> dict[str, Handler]:
        return {"Recommend": Unary(self.recommend, OBEYED_RECOMMEND)}

    def close(self) -> None:
        """End the threads."""
        self._sources.close()

    async def recommend(self, request: public.RecommendRequest, call: Call) -> public.RecommendResponse:
        """The best items for somebody, with what there is in time."""
        wish = wish_of(request, self._map, self._pipelines)
        course, deadline = _Course(wish), call.deadline.with_reserve()
        tables = self._tables.get(wish.release.name, _NO_TABLES)
        taste = await self._look_up(course, tables, deadline)
        found = await self._sources.ask(wish, taste, tables, deadline)
        coverage = self._judge(course, found)
        began_s = time.monotonic()
        candidates, texts = await self._sources.merge(found, wish, taste, tables, deadline)
        course.timings.append(("merge", found.merge_s + time.monotonic() - began_s))
        # Reading attributes comes after ranking, and needs its part of the time.
        ranking_ends = deadline.with_reserve() if wish.attributes else deadline
        # Popular items for somebody unknown stay in their order: there is nothing to rank them by.
        ranking = None
        if not taste.is_blank:
            ranking = await self._rank(course, candidates, texts, ranking_ends)
        ranked = NO_PLACES if ranking is None else ranking.places
        ordered = Ordered(
            candidates=candidates,
            places=in_order(ranked, len(candidates.keys), wish.item_count),
            ranking=ranking,
            texts=texts,
        )
        response = public.RecommendResponse(request_id=wish.request_id)
        add_items(response, ordered, self._map.id_kind, explain=wish.explain)
        if ranking is not None and ordered.ranked_count:
            response.ranker_model = ranking.model
            response.ranker_model_version = ranking.model_version
        if wish.attributes and len(response.items):
            await self._read_attributes(course, response, ordered, deadline)
        response.certificate.CopyFrom(self._certificate(course, coverage, found))
        return self._answered(course, response)

    async def _look_up(self, course: _Course, tables: ReleaseTables, deadline: Deadline) -> Taste:
        """What is known of who asks. Raises UnknownUser where nothing can be proposed."""
        began_s, wish = time.monotonic(), course.wish
        taste = await self._sources.taste(wish, tables, deadline)
        course.end_stage("embedding", began_s)
        who = f"user {wish.user_id!r} is not in the release" if wish.user_id else "no user was named"
        if taste.is_known:
            who = f"nothing is recorded of user {wish.user_id!r}"
        if taste.is_blank:
            if not (tables.has_popular and wish.pipeline.popularity.quota):
                raise UnknownUser(
                    f"{who}, and there are no popular items to fall back to: give user_embedding,"
                    " or recent_items where the release has item tables"
                )
            detail = (
                f"{who}, and no embedding or known recent items were given: these are popular items"
            )
            course.degradations.append(Degradation(FALLBACK, UnknownUser.reason, detail))
        elif taste.embedding is None and wish.user_id and wish.pipeline.index.quota:
            error = UnknownUser(f"{who}: there is no embedding to search with")
            course.degradations.append(of_source(wish.pipeline.index.name, error))
        return taste

    def _judge(self, course: _Course, found: Found) -> Coverage:
        """What the sources covered. Raises where that is too little, or a required one failed."""
        wish = course.wish
        course.timings += [("queue", found.queue_s), ("retrieval", found.retrieval_s)]
        course.degradations += [of_source(name, error) for name, error in found.failures.items()]
        counts = self._gatherer.last_counts
        results = unsearched(self._shards, counts) if found.results is None else found.results
        coverage = cover(self._shards, results, counts)
        self._count_missed(coverage)
        if coverage.share < wish.minimum_coverage:
            certificate = self._certificate(course, coverage, found)
            require_coverage(coverage, wish.minimum_coverage, certificate)
        for source in wish.pipeline.sources:
            error = found.failures.get(source.name)
            if error is None or not source.required:
                continue
            if isinstance(error, DeadlineSpent | Overloaded):
                raise error
            raise CoverageTooLow(
                f"source {source.name}, which the pipeline requires: {error.message}",
                self._certificate(course, coverage, found),
            )
        return coverage

    async def _rank(
        self, course: _Course, candidates: Candidates, texts: Mapping[int, bytes], deadline: Deadline
    ) -> Ranking | None:
        """The ranking where there is a ranker for the release; failures cost that alone."""
        wish = course.wish
        if not (wish.release.ranker_model and wish.pipeline.rank and len(candidates.keys)):
            return None
        began_s = time.monotonic()
        order = RankOrder(
            request_id=wish.request_id,
            release=wish.release,
            candidates=candidates,
            candidate_count=len(candidates.keys),
            texts=texts,
            item_count=wish.item_count,
            explain=wish.explain,
        )
        ranking, degradations = await self._rankers.rank(order, deadline)
        course.degradations += degradations
        course.end_stage("ranking", began_s)
        return ranking

    async def _read_attributes(
        self,
        course: _Course,
        response: public.RecommendResponse,
        ordered: Ordered,
        deadline: Deadline,
    ) -> None:
        """Fill in attributes; items that cannot be read come without, and the certificate says so."""
        began_s, wish = time.monotonic(), course.wish
        ids = ids_of_items(response, self._map.id_kind)
        read, unread = await self._items.read(ids, ordered.keys, wish.release, deadline)
        add_attributes(response, read, wish.attributes)
        for reason, count in sorted(Counter(unread.values()).items()):
            detail = f"attributes of {count} of {len(response.items)} items could not be read"
            course.degradations.append(Degradation(FEATURES, reason, detail))
        course.end_stage("features", began_s)
        if response.ByteSize() > ANSWER_BYTES_MAX:
            raise InvalidRequest(
                "item_attributes", "the answer exceeds 4 MiB: ask for fewer, or for fewer items"
            )

    def _certificate(self, course: _Course, coverage: Coverage, found: Found) -> Certificate:
        return certificate_of(
            self._map,
            course.wish.release.name,
            coverage,
            course.timings,
            with_recall=found.results is not None,
            degradations=course.degradations,
        )

    def _answered(
        self, course: _Course, response: public.RecommendResponse
    ) -> public.RecommendResponse:
        for taken in course.degradations:
            self._degraded.labels(taken.stage, taken.reason).inc()
        self._log.debug("recommended", request_id=course.wish.request_id, items=len(response.items))
        return response
