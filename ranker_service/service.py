"""The ranking service's RPCs: Rank, ListModels."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from rangefinder.deadline import Deadline
from rangefinder.edge.service import Call, Handler, Unary
from rangefinder.errors import NotReady
from rangefinder.internal.v1.packed_pb2 import PackedRankResponse
from rangefinder.release import ReleaseManifest
from rangefinder.telemetry.logs import get_log
from rangefinder.telemetry.metrics import ProcessMetrics
from rangefinder.v1 import ranking_pb2 as public
from ranker_service.model import CHUNK_ROWS
from ranker_service.ranker import Ranked, Ranker, Ranking
from ranker_service.wire import OBEYED_RANK, answer_of, asked_of


class RankingService:
    """RPCs of rangefinder.v1.RankingService, over one release."""

    def __init__(
        self, root: Path, manifest: ReleaseManifest, thread_count: int, metrics: ProcessMetrics
    ) -> None:
        self._root, self._manifest = root, manifest
        self._threads = ThreadPoolExecutor(thread_count or len(os.sched_getaffinity(0)), "score")
        self._ranker: Ranker | None = None
        self._under_way = 0  # Lists that are being ranked.
        counter = metrics.counter(
            "candidates_ranked", "Candidates of requests, by whether there was time.", ("outcome",)
        )
        self._scored, self._late = counter.labels("scored"), counter.labels("late")
        self._defaulted: dict[str, int] = {}
        metrics.counts(
            "features_defaulted",
            "Feature values that were absent, by feature.",
            "feature",
            lambda: self._defaulted,
        )
        self._log = get_log()

    def handlers(self) -> dict[str, Handler]:
        """Every RPC."""
        return {
            "Rank": Unary(self.rank, OBEYED_RANK),
            "ListModels": Unary(self.list_models, frozenset()),
        }

    async def load(self) -> None:
        """Load the ranker and warm it up. Raises InputRefused, ReleaseDamaged."""
        loop = asyncio.get_running_loop()
        ranker = await loop.run_in_executor(
            self._threads, partial(Ranker.open, self._root, self._manifest)
        )
        await loop.run_in_executor(self._threads, ranker.warm_up)
        self._ranker = ranker

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def rank(self, request: public.RankRequest, call: Call) -> PackedRankResponse:
        """Candidates in the order of their scores."""
        ranker = self._require_ready()
        card = ranker.card
        asked = asked_of(request, card, self._manifest)
        ranked = await self._ranked(ranker, asked.ranking, call.deadline.with_reserve())
        self._count(ranked)
        self._log.debug("ranked", request_id=asked.request_id, scored=ranked.scored_count)
        return answer_of(asked, ranked, card)

    def _count(self, ranked: Ranked) -> None:
        self._scored.inc(ranked.scored_count)
        if unscored_count := len(ranked.order) - ranked.scored_count:
            self._late.inc(unscored_count)
        defaulted = self._defaulted
        counts = ranked.features.default_counts.tolist()
        for name, count in zip(ranked.features.names, counts, strict=True):
            if count:
                defaulted[name] = defaulted.get(name, 0) + count

    async def _ranked(self, ranker: Ranker, ranking: Ranking, deadline: Deadline) -> Ranked:
        """On a thread; the usual list on the loop where it is alone: handing it over costs as much."""
        self._under_way += 1
        try:
            await asyncio.sleep(0)  # What arrived together with it is under way, too, by then.
            if self._under_way == 1 and len(ranking.keys) <= CHUNK_ROWS:
                return ranker.rank(ranking, deadline)
            work = partial(ranker.rank, ranking, deadline)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._under_way -= 1

    async def list_models(
        self, request: public.ListModelsRequest, call: Call
    ) -> public.ListModelsResponse:
        """The one model of the release."""
        del request, call
        card = self._require_ready().card
        model = public.Model(
            name=card.model,
            version=card.version,
            features=card.feature_names,
            heads=card.head_names,
            active=True,
        )
        return public.ListModelsResponse(models=[model])

    def _require_ready(self) -> Ranker:
        if self._ranker is None:
            raise NotReady("this ranker is loading: ask another, or later")
        return self._ranker
