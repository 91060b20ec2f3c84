"""The parts of a trial: when each began, and what the router had sent by then."""

import asyncio
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from rangefinder.cli.bench.loads import Window
from rangefinder.cli.bench.router_metrics import RouterMetrics
from rangefinder.cli.bench.schedule import Latency, Samples
from rangefinder.cli.bench.trials import Sent, Span


class _Mark(NamedTuple):
    what: str
    at_s: float
    sent: Sent | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """Notes when each part begins, while load is on."""

    window: Window
    metrics: RouterMetrics | None
    _marks: list[_Mark] = field(default_factory=list)

    async def begin(self, what: str, at_s: float) -> None:
        """Wait until a moment of the monotonic clock, at which a part begins."""
        await asyncio.sleep(at_s - time.monotonic())
        sent = await self.metrics.sent() if self.metrics is not None else None
        self._marks.append(_Mark(what, at_s, sent))

    async def end(self) -> None:
        """Wait until the end of the window."""
        await self.begin("", self.window.end_s)

    def spans(self, samples: Samples) -> list[Span]:
        """What became of the requests of each part."""
        return [self._span(samples, begun, ended) for begun, ended in pairwise(self._marks)]

    def _span(self, samples: Samples, begun: _Mark, ended: _Mark) -> Span:
        inside = samples.due_within(begun.at_s, ended.at_s)
        return Span(
            what=begun.what,
            begin_s=begun.at_s - self.window.begin_s,
            end_s=ended.at_s - self.window.begin_s,
            requests=len(inside.due_s),
            failed=inside.failed,
            partial=inside.partial,
            latency=Latency.of(inside),
            sent=ended.sent.since(begun.sent) if ended.sent and begun.sent else None,
        )
