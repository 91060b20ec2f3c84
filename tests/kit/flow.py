"""A steady flow of requests, and what became of each: faults are judged by what callers saw."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from rangefinder import Client, Retrieved
from rangefinder.errors import RangefinderError
from tests.kit.small_release import SmallRelease
from tests.kit.waiting import until

DEADLINE_S = 0.2
ITEM_COUNT = 10
LANES = 4

# Between two requests of a lane: some hundred requests a second leave time for other tests.
PAUSE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request and its outcome."""

    query: int  # Which of the release's queries.
    exact: bool
    began_s: float
    took_s: float
    outcome: Retrieved | RangefinderError

    @property
    def coverage(self) -> float:
        """0 where the request failed."""
        return self.outcome.certificate.coverage if isinstance(self.outcome, Retrieved) else 0.0

    @property
    def missed(self) -> set[tuple[int, int]]:
        """The key ranges that the answer does not cover."""
        assert isinstance(self.outcome, Retrieved)
        return {(each.key_start, each.key_end) for each in self.outcome.certificate.missed_ranges}


@dataclass(slots=True)
class Flow:
    """Requests in the order of their answers."""

    asked: list[Asked] = field(default_factory=list)

    async def until_one(self, wanted: Callable[[Asked], bool], *, within_s: float, what: str) -> float:
        """Wait for such a request, begun from now on; returns how many seconds it took."""
        since_s = time.monotonic()

        def is_there() -> bool:
            newest = reversed(self.asked)
            return any(wanted(each) for each in newest if each.began_s >= since_s)

        return await until(is_there, within_s=within_s, what=what)

    async def until_whole(self, *, within_s: float) -> float:
        """Wait for an answer that covers everything."""
        return await self.until_one(
            lambda asked: asked.coverage == 1, within_s=within_s, what="an answer covers everything"
        )

    async def until_partial(self, *, within_s: float) -> float:
        """Wait for an answer that does not."""
        return await self.until_one(
            lambda asked: isinstance(asked.outcome, Retrieved) and asked.coverage < 1,
            within_s=within_s,
            what="an answer says that it is partial",
        )

    def failed(self) -> list[RangefinderError]:
        return [each.outcome for each in self.asked if isinstance(each.outcome, RangefinderError)]

    def partial(self) -> list[Asked]:
        """Those that were answered, but not from everything."""
        answered = [each for each in self.asked if isinstance(each.outcome, Retrieved)]
        return [each for each in answered if each.coverage < 1]


@asynccontextmanager
async def steady_flow(
    client: Client, release: SmallRelease, *, pause_s: float = PAUSE_S
) -> AsyncIterator[Flow]:
    """Ask on several lanes, exactly and by index in turn, until the block ends.

    Without a pause, some requests are under way on every node at any moment.
    """
    flow = Flow()
    is_over, numbers = asyncio.Event(), count()

    async def ask(number: int) -> None:
        query, exact = number % len(release.queries), number // len(release.queries) % 2 == 0
        began_s = time.monotonic()
        try:
            outcome: Retrieved | RangefinderError = await client.retrieve(
                release.queries[query],
                ITEM_COUNT,
                exact=exact,
                deadline_s=DEADLINE_S,
            )
        except RangefinderError as error:
            outcome = error
        took_s = time.monotonic() - began_s
        flow.asked.append(
            Asked(query=query, exact=exact, began_s=began_s, took_s=took_s, outcome=outcome)
        )

    async def run_lane() -> None:
        while not is_over.is_set():
            await ask(next(numbers))
            await asyncio.sleep(pause_s)

    async with asyncio.TaskGroup() as group:
        for lane in range(LANES):
            group.create_task(run_lane(), name=f"lane-{lane}")
        try:
            yield flow
        finally:
            is_over.set()


def require_right(flow: Flow, release: SmallRelease) -> None:
    """Every hit is a true one, of the ranges that its answer says were searched.

    Exact answers are the oracle's own, those by index are in the right order with true scores.
    """
    for asked in flow.asked:
        if not isinstance(asked.outcome, Retrieved):
            continue
        places = release.places(asked.query, asked.outcome.certificate)
        hits = zip(list(asked.outcome.ids), asked.outcome.scores.tolist(), strict=True)
        found = [places.get(hit) for hit in hits]
        assert None not in found, asked
        if asked.exact:
            assert found == list(range(min(ITEM_COUNT, len(places))))
        else:
            assert len(found) == min(ITEM_COUNT, len(places))
            assert found == sorted({place for place in found if place is not None})
