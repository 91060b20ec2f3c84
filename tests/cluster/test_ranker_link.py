"""A ranking service as a router sees it: when it is left out, and when it is taken back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from rangefinder.candidates import INDEX, Proposals, merge_candidates
from rangefinder.cluster_map import Release
from rangefinder.errors import (
    DeadlineSpent,
    InvalidRanking,
    Overloaded,
    RangefinderError,
    RankerUnavailable,
)
from rangefinder.keys import IdKind, keys_of_integers
from rangefinder.metric import Metric
from router.health import EJECTION_S, FAILURE_COUNT_MAX, SILENCE_S
from router.ranker_link import RankerLink, RankOrder
from tests.kit.scripted_ranker import (
    MODEL,
    VERSION,
    ScriptedRanker,
    changed,
    garbage,
    never,
    refusing,
    rightly,
    scripted_ranker,
)
from tests.kit.versions import newer, older
from tests.kit.waiting import until

IDS = np.arange(50, dtype=np.int64)


def order() -> RankOrder:
    keys = keys_of_integers(IDS, IdKind.INTEGER)
    part = Proposals(INDEX, keys, np.ones(len(keys), np.float32))
    return RankOrder(
        request_id="r",
        release=Release(
            name="x",
            dimension=2,
            metric=Metric.L2,
            ranker_model=MODEL,
            ranker_model_version=VERSION,
        ),
        candidates=merge_candidates([part], 50),
        candidate_count=50,
        texts={},
        item_count=20,
        explain=False,
    )


class Linked:
    """A ranker and a link to it whose time stands still until it is set."""

    def __init__(self, ranker: ScriptedRanker) -> None:
        self.ranker, self.now_s = ranker, 100.0
        self.link = RankerLink(ranker.address, IdKind.INTEGER, lambda: self.now_s)

    async def outcome(self, timeout_s: float = 5.0) -> type[RangefinderError] | None:
        """How a call fails; None where it does not."""
        try:
            await self.link.rank(order(), timeout_s)
        except RangefinderError as error:
            return type(error)
        return None


@asynccontextmanager
async def linked() -> AsyncIterator[Linked]:
    async with scripted_ranker() as ranker:
        both = Linked(ranker)
        watching = asyncio.create_task(both.link.watch(), name="watch")
        try:
            yield both
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def test_callers_in_a_hurry_do_not_cost_others_their_ranker() -> None:
    """Timeouts while the ranker was not yet silent for long say nothing of it; later ones do."""
    async with linked() as both:
        assert await both.outcome() is None
        both.ranker.script = never
        both.now_s += 60
        for _ in range(2 * FAILURE_COUNT_MAX):
            assert await both.outcome(0.01) is DeadlineSpent
        was_usable = both.link.is_usable
        both.now_s += 2 * SILENCE_S
        left_out = []
        for _ in range(FAILURE_COUNT_MAX):
            assert await both.outcome(0.01) is DeadlineSpent
            left_out.append(not both.link.is_usable)
        assert was_usable
        assert left_out == [False, False, True]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"), Overloaded),
        (refusing(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_SPENT"), DeadlineSpent),
    ],
)
async def test_a_ranker_that_has_too_much_to_do_is_not_left_out(
    script: object, error: type[RangefinderError]
) -> None:
    """It answers, so it is no failing one, however often it says so."""
    async with linked() as both:
        both.ranker.script = script  # type: ignore[assignment]
        for _ in range(3 * FAILURE_COUNT_MAX):
            both.now_s += 2 * SILENCE_S
            assert await both.outcome() is error
        assert both.link.is_usable


@pytest.mark.parametrize("change", [newer, older])
async def test_a_ranker_of_another_version_is_believed(change: Callable[[Message], object]) -> None:
    """Fields that this router does not know, or misses where it can do without, are no nonsense."""
    async with linked() as both:
        both.ranker.script = changed(change)
        assert await both.outcome() is None
        assert both.link.is_usable


async def test_one_that_talks_nonsense_is_probed_and_taken_back() -> None:
    """Left out after the third answer in a row that is none, probed when its time has come, and then
    asked again; it is as good as new after a right answer."""
    async with linked() as both:
        both.ranker.script = garbage
        for _ in range(FAILURE_COUNT_MAX):
            assert both.link.is_usable
            assert await both.outcome() is InvalidRanking
        assert not both.link.is_usable
        assert both.ranker.probed == 0
        both.ranker.script = rightly
        both.now_s += EJECTION_S
        await until(lambda: both.link.is_usable, within_s=10, what="the ranker is taken back")
        assert both.ranker.probed == 1
        assert await both.outcome() is None
        assert both.link.health.failure_count == 0
        assert both.link.in_flight == 0


@pytest.mark.parametrize("gone_s", [2.5, 6.1])
async def test_one_that_was_restarted_is_asked_again_within_two_seconds(gone_s: float) -> None:
    """However long it was gone: neither probes nor gRPC's attempts to connect become rare."""
    async with scripted_ranker() as ranker:
        link = RankerLink(ranker.address, IdKind.INTEGER)
        await link.rank(order(), 5.0)
    watching = asyncio.create_task(link.watch(), name="watch")
    while link.is_usable:
        with pytest.raises(RankerUnavailable):
            await link.rank(order(), 5.0)
    await asyncio.sleep(gone_s)
    async with scripted_ranker(ranker.port):
        await until(lambda: link.is_usable, within_s=2, what="the ranker is taken back")
        await link.rank(order(), 5.0)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
