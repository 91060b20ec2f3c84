"""A steady flow of recommendations, and what became of each: faults are judged by what callers saw."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from rangefinder import Client, Recommended
from rangefinder.errors import RangefinderError
from tests.kit.tasted_release import TastedRelease
from tests.kit.waiting import until

DEADLINE_S = 0.4
LANES = 3
PAUSE_S = 0.02


@dataclass(slots=True)
class RecommendFlow:
    """Recommendations in the order of their answers."""

    answers: list[Recommended] = field(default_factory=list)
    failed: list[RangefinderError] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)

    async def until_ranked(self, *, within_s: float) -> None:
        """Wait for an answer, from now on, that is ranked."""
        await self._until(True, within_s)

    async def until_unranked(self, *, within_s: float) -> None:
        """Wait for an answer, from now on, that is not."""
        await self._until(False, within_s)

    async def _until(self, is_ranked: bool, within_s: float) -> None:
        since = len(self.answers)
        await until(
            lambda: any(bool(each.is_ranked.all()) is is_ranked for each in self.answers[since:]),
            within_s=within_s,
            what=f"an answer is {'' if is_ranked else 'not '}ranked",
        )


@asynccontextmanager
async def steady_flow(client: Client, release: TastedRelease) -> AsyncIterator[RecommendFlow]:
    """Ask for one user after the other, on several lanes, until the block ends."""
    flow, is_over, numbers = RecommendFlow(), asyncio.Event(), count()

    async def run_lane() -> None:
        while not is_over.is_set():
            began_s = time.monotonic()
            try:
                user = release.users[next(numbers) % len(release.users)]
                flow.answers.append(await client.recommend(user, deadline_s=DEADLINE_S))
            except RangefinderError as error:
                flow.failed.append(error)
            flow.took_s.append(time.monotonic() - began_s)
            await asyncio.sleep(PAUSE_S)

    async with asyncio.TaskGroup() as group:
        for lane in range(LANES):
            group.create_task(run_lane(), name=f"lane-{lane}")
        try:
            yield flow
        finally:
            is_over.set()
