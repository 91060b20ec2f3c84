"""One ranking service as this router worker sees it: how it is asked, and whether it should be.

A call ends by its own timeout, never by being cancelled, which would leak.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from rangefinder.candidates import Candidates, Places, Scores
from rangefinder.cluster_map import Release
from rangefinder.deadline import Clock
from rangefinder.edge.channel import ANSWER_BYTES_MAX, open_channel
from rangefinder.edge.columns import integers_of
from rangefinder.edge.status import DETAILS_KEY, error_of
from rangefinder.errors import (
    DeadlineSpent,
    Draining,
    InvalidRanking,
    NotReady,
    Overloaded,
    RangefinderError,
    RankerUnavailable,
    ReplicaUnavailable,
)
from rangefinder.internal.v1.packed_pb2 import PackedItemIds, PackedRankRequest
from rangefinder.keys import IdKind
from rangefinder.telemetry.logs import get_log
from rangefinder.v1 import ranking_pb2 as public
from rangefinder.v1.types_pb2 import ItemIds
from router.certificate import packed_ids
from router.health import SILENCE_S, NodeHealth
from router.ranking import Ranking, places_of, require_ranking

_SERVICE = "/rangefinder.v1.RankingService"
_PROBE_S_MAX = 0.5
_WATCH_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOrder:
    """Candidates to rank, and how many are wanted back."""

    request_id: str
    release: Release
    candidates: Candidates  # At most `candidate_count` of them, the first ones, are ranked.
    candidate_count: int
    texts: Mapping[int, bytes]  # In a text cluster: the id of each key.
    item_count: int
    explain: bool


class RankerLink:
    """A ranking service."""

    def __init__(self, address: str, id_kind: IdKind, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.address, self.health, self.in_flight = address, NodeHealth(), 0
        self._id_kind = id_kind
        self._channel = open_channel(address, ANSWER_BYTES_MAX)
        # Bytes in and out: what is asked is a packed twin, and garbage is no status but an answer.
        self._rank: Any = self._channel.unary_unary(f"{_SERVICE}/Rank")
        self._list_models: Any = self._channel.unary_unary(f"{_SERVICE}/ListModels")
        self._asked_s = self._heard_s = 0.0  # When it was first asked since it was heard of.
        self._log = get_log()

    @property
    def is_usable(self) -> bool:
        """Whether candidates should be sent here."""
        return not self.health.is_ejected

    async def rank(self, order: RankOrder, timeout_s: float) -> Ranking:
        """Have candidates ranked. Raises RangefinderError, whatever the ranker does."""
        asked = packed_ids(order.candidates.keys[: order.candidate_count], self._id_kind, order.texts)
        content = _message(order, asked).SerializeToString()
        if self._asked_s <= self._heard_s:
            self._asked_s = self._clock()
        self.in_flight += 1
        try:
            answer = await self._rank(content, timeout=timeout_s)
            self._heard_s = self._clock()
            ranking = _ranking_in(answer, order, asked)
        except grpc.aio.AioRpcError as failure:
            raise self._failed(failure) from None
        except InvalidRanking:
            self._record_failure("what it answers is no ranking")
            raise
        finally:
            self.in_flight -= 1
        self.health.record_success()
        return ranking

    async def watch(self) -> None:
        """Probe the ranker while it is ejected, until cancelled."""
        try:
            while True:
                await asyncio.sleep(_WATCH_S)
                if self.health.is_probe_due(self._clock()):
                    await self._probe()
        finally:
            await self._channel.close()

    async def _probe(self) -> None:
        """Where it is not there, gRPC connects by itself: the probe goes out once it has."""
        began_s = self._clock()
        try:
            await self._list_models(b"", timeout=_PROBE_S_MAX, wait_for_ready=True)
            succeeded = True
        except grpc.aio.AioRpcError:
            succeeded = False
        self.health.record_probe(began_s, succeeded=succeeded)
        if succeeded:
            self._heard_s = self._clock()
            self._log.info("ranker_taken_back", ranker=self.address)

    def _failed(self, failure: grpc.aio.AioRpcError) -> RangefinderError:
        """What a failed call means, to this request and to the ranker's health."""
        error, now_s = error_of(failure), self._clock()
        if any(key == DETAILS_KEY for key, _ in failure.trailing_metadata() or ()):
            self._heard_s = now_s
        match error:
            case Overloaded():
                pass  # It works; it has too much to do.
            case DeadlineSpent():
                # A caller in a hurry says nothing of the ranker, silence for so long does.
                if now_s - max(self._asked_s, self._heard_s) >= SILENCE_S:
                    self._record_failure("it is silent")
            case ReplicaUnavailable() | NotReady() | Draining():
                self._record_failure(error.message)
                return RankerUnavailable(f"{self.address}: {error.message}")
            case _:
                self._record_failure(error.message)
        return error

    def _record_failure(self, why: str) -> None:
        was_usable = self.is_usable
        self.health.record_failure(self._clock())
        if was_usable and not self.is_usable:
            self._log.warning("ranker_left_out", ranker=self.address, why=why)


def _message(order: RankOrder, asked: PackedItemIds) -> PackedRankRequest:
    count, candidates = order.candidate_count, order.candidates
    return PackedRankRequest(
        request_id=order.request_id,
        items=asked,
        sources=candidates.sources,
        source_scores=candidates.source_scores[:count].astype("<f4", copy=False).tobytes(),
        model=order.release.ranker_model,
        model_version=order.release.ranker_model_version,
        release=order.release.name,
        item_count=order.item_count,
        explain=order.explain,
    )


def _ranking_in(content: bytes, order: RankOrder, asked: PackedItemIds) -> Ranking:
    """A ranker's answer as places in the list of candidates. Raises InvalidRanking."""
    try:
        answer = public.RankResponse.FromString(content)
    except DecodeError:
        raise InvalidRanking("the bytes are no RankResponse") from None
    places, scores = _places(answer.items, asked), np.array(answer.scores[:], np.float32)
    require_ranking(places, scores, answer.scored_count, order.candidate_count, order.item_count)
    named = (answer.model, answer.model_version)
    if named != (order.release.ranker_model, order.release.ranker_model_version):
        raise InvalidRanking(f"it ranked with {named}, not with the model of {order.release.name}")
    scored = slice(min(answer.scored_count, len(places)))
    return Ranking(
        places=places[scored],
        scores=scores[scored],
        scored_count=answer.scored_count,
        model=answer.model,
        model_version=answer.model_version,
        head_scores=_columns(answer.head_scores, len(places), scored),
        features=_columns(answer.features, len(places), scored),
    )


def _places(items: ItemIds, asked: PackedItemIds) -> Places:
    """The place of each item among those asked for, -1 where it is none of them."""
    if asked.texts:
        place_of = {text: place for place, text in enumerate(asked.texts)}
        return np.array([place_of.get(text.encode(), -1) for text in items.texts], np.int64)
    return places_of(integers_of(items), np.frombuffer(asked.integers, "<i8"))


def _columns(
    columns: Mapping[str, public.FloatColumn], length: int, scored: slice
) -> dict[str, Scores]:
    read = {name: np.array(column.values[:], np.float32) for name, column in columns.items()}
    if any(len(column) != length for column in read.values()):
        raise InvalidRanking("a column that does not stand beside the items")
    return {name: column[scored] for name, column in read.items()}
