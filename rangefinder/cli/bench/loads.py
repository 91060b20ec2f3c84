"""Loads on a cluster, measured: which time counts, and what came of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

from rangefinder.cli.bench.calls import Asked
from rangefinder.cli.bench.cluster import Cluster, CpuSeconds
from rangefinder.cli.bench.figures import Cpu, Load
from rangefinder.cli.bench.lists import Mode
from rangefinder.cli.bench.load import LoadOrder
from rangefinder.cli.bench.schedule import Latency, Samples
from rangefinder.cli.bench.workers import Workers, make_load

# Orders reach all processes by then.
START_S = 0.25

# Left out of what is measured: connections are made, caches filled.
_WARM_S = 0.3

# Load goes on a little after the last moment that counts: until then it is as it was.
_TAIL_S = 0.05

MICRO = 1e6


@dataclass(frozen=True, slots=True)
class Window:
    """The time that counts, on the monotonic clock."""

    begin_s: float
    end_s: float

    @classmethod
    def soon(cls, seconds: float) -> "Window":
        begin_s = time.monotonic() + START_S + _WARM_S
        return cls(begin_s, begin_s + seconds)

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True)
class Loads:
    """Generators, and how long each load counts."""

    generators: Workers
    seconds: float

    async def closed(self, cluster: Cluster, asked: Asked, in_flight: int, run: int) -> Load:
        """So many requests in flight; those that ended in the window count."""
        window = Window.soon(self.seconds)
        async with self.making(asked, window, in_flight=in_flight) as made:
            cpu = await cluster.cpu_between(window.begin_s, window.end_s)
            samples = (await made).ended_within(window.begin_s, window.end_s)
        return _load(asked, samples, window, cpu, run=run, in_flight=in_flight, rate=None)

    async def open(self, cluster: Cluster, asked: Asked, rate: float, run: int) -> Load:
        """So many requests a second; those that were due in the window count."""
        window = Window.soon(self.seconds)
        async with self.making(asked, window, rate=rate) as made:
            cpu = await cluster.cpu_between(window.begin_s, window.end_s)
            samples = (await made).due_within(window.begin_s, window.end_s)
        return _load(asked, samples, window, cpu, run=run, in_flight=0, rate=rate)

    @asynccontextmanager
    async def making(
        self, asked: Asked, window: Window, *, in_flight: int = 0, rate: float | None = None
    ) -> "AsyncIterator[asyncio.Task[Samples]]":
        """A load that is under way within the block: open where there is a rate, else closed."""
        made = asyncio.create_task(self._make(asked, window, in_flight, rate), name="make-load")
        try:
            yield made
        finally:
            if made.cancel():  # The block has failed before it.
                await asyncio.wait([made])

    async def _make(self, asked: Asked, window: Window, in_flight: int, rate: float | None) -> Samples:
        """All generators at once, each with its part."""
        count = self.generators.count if rate is not None else min(self.generators.count, in_flight)
        orders = [
            LoadOrder(
                asked=asked,
                begin_s=window.begin_s - _WARM_S,
                end_s=window.end_s + _TAIL_S,
                in_flight=in_flight // count + (number < in_flight % count),
                rate=rate,
                generator=number,
                generators=count,
            )
            for number in range(count)
        ]
        return Samples.together(await self.generators.run(make_load, *orders))


def _load(
    asked: Asked,
    samples: Samples,
    window: Window,
    cpu: CpuSeconds | None,
    *,
    run: int,
    in_flight: int,
    rate: float | None,
) -> Load:
    each = 1 if asked.mode is Mode.UNARY else asked.queries_per_message
    queries = (len(samples.due_s) - samples.failed) * each
    return Load(
        run=run,
        mode=asked.mode,
        in_flight=in_flight,
        rate=rate,
        queries_per_s=queries / window.seconds,
        latency=Latency.of(samples),
        cpu=_per_query(cpu, queries),
        messages=len(samples.due_s),
        failed=samples.failed,
        partial=samples.partial,
        failures=samples.failures,
        sent_late_ms=late_ms(samples),
    )


def late_ms(samples: Samples) -> float:
    """How far a generator was behind its own schedule, p99."""
    late_s = samples.sent_s - samples.due_s
    return float(np.percentile(late_s, 99) * 1000) if len(late_s) else 0.0


def _per_query(cpu: CpuSeconds | None, queries: int) -> Cpu | None:
    if cpu is None or queries == 0:
        return None
    return Cpu(routers=cpu.routers / queries * MICRO, nodes=cpu.nodes / queries * MICRO)
