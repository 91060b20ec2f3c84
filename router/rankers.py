"""Ranking of one list: by whichever ranker can, as far as the time allows, or else not at all."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace

from rangefinder.deadline import Deadline
from rangefinder.errors import DeadlineSpent, Overloaded, RangefinderError, RankerUnavailable
from router.degradation import RANKING, Degradation, of_ranking
from router.ranker_link import RankerLink, RankOrder
from router.ranking import Ranking, RankingPace, less_busy

# Refused at once by one, a list may go to another.
_ELSEWHERE = (RankerUnavailable, Overloaded)


class Rankers:
    """All ranking services that this router may ask."""

    def __init__(self, links: Sequence[RankerLink]) -> None:
        self.links = {link.address: link for link in links}
        self._pace, self._random = RankingPace(), random.Random()

    @property
    def usable_count(self) -> int:
        return sum(link.is_usable for link in self.links.values())

    async def rank(
        self, order: RankOrder, deadline: Deadline
    ) -> tuple[Ranking | None, list[Degradation]]:
        """The ranking, and in what it is poorer than it could be. Failures cost the ranking alone."""
        asked_count = order.candidate_count
        count = min(asked_count, self._pace.count_in(deadline.remaining_s()))
        if count == 0:
            return None, [of_ranking(DeadlineSpent("no time was left to rank any"))]
        began_s = time.monotonic()
        try:
            part = order if count == asked_count else replace(order, candidate_count=count)
            ranking = await self._ask(part, deadline)
        except RangefinderError as error:
            return None, [of_ranking(error)]
        self._pace.record(ranking.scored_count, time.monotonic() - began_s)
        if ranking.scored_count < asked_count:
            return ranking, [_cut(ranking.scored_count, asked_count)]
        return ranking, []

    async def _ask(self, order: RankOrder, deadline: Deadline) -> Ranking:
        """One ranker, or where that refuses at once, another."""
        usable = {name: link.in_flight for name, link in self.links.items() if link.is_usable}
        error: RangefinderError = RankerUnavailable(
            "no ranker answers" if self.links else "this router is configured with no ranker"
        )
        for name in less_busy(usable, self._random.random()):
            if deadline.is_spent():
                break
            try:
                return await self.links[name].rank(order, deadline.remaining_s())
            except _ELSEWHERE as refusal:
                error = refusal
        raise error


def _cut(scored_count: int, asked_count: int) -> Degradation:
    return Degradation(
        RANKING,
        DeadlineSpent.reason,
        f"{scored_count} of {asked_count} candidates were ranked in the time allowed;"
        " the others follow in retrieval order",
    )
