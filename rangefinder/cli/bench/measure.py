"""What is measured in one run: yardsticks, loads, and the curve of the widths."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from rangefinder.cli.bench.calls import Asked
from rangefinder.cli.bench.cluster import Cluster
from rangefinder.cli.bench.echo import EchoServer
from rangefinder.cli.bench.figures import Echo, Kernel, Load, Width
from rangefinder.cli.bench.kernel import KernelOrder, load_shards, search_in_memory
from rangefinder.cli.bench.lists import Mode
from rangefinder.cli.bench.loads import MICRO, START_S, Loads, Window
from rangefinder.cli.bench.recall import Recall, widths_from
from rangefinder.cli.bench.schedule import Latency
from rangefinder.cli.bench.workers import Workers
from rangefinder.errors import InputRefused
from rangefinder.telemetry.process import cpu_seconds

# The curve ends once there is no more to be found.
_RECALL_ENOUGH = 0.995
_CURVE_S_MAX = 1.0  # Many widths, of each a point.
_CURVE_IN_FLIGHT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, how often, and with how much at once."""

    in_flight: Sequence[int]
    modes: Sequence[Mode]
    seconds: float
    runs: int
    queries_per_message: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Who makes load, who searches in memory, and what they meet."""

    plan: Plan
    cluster: Cluster
    echo: EchoServer
    loads: Loads
    searchers: Workers
    release: Path
    asked: Asked  # One query a call; the address is that of the cluster.

    def at(self, cluster: Cluster) -> "Bench":
        """The same for another cluster of the same release."""
        return replace(self, cluster=cluster, asked=replace(self.asked, address=cluster.address))

    async def echoes(self, run: int, in_flight: int, rate: float | None = None) -> Echo:
        """Empty calls, so many in flight, or so many a second."""
        asked = replace(self.asked, address=self.echo.address, mode=Mode.ECHO)
        window = Window.soon(self.plan.seconds)
        async with self.loads.making(asked, window, in_flight=in_flight, rate=rate) as made:
            await asyncio.sleep(window.begin_s - time.monotonic())
            cpu_s = cpu_seconds(self.echo.pid)
            await asyncio.sleep(window.end_s - time.monotonic())
            cpu_s = cpu_seconds(self.echo.pid) - cpu_s
            samples = (await made).ended_within(window.begin_s, window.end_s)
        latency = Latency.of(samples)
        if latency is None:
            raise InputRefused("not one empty call was answered: give more --seconds")
        return Echo(
            run=run,
            in_flight=in_flight,
            calls_per_s=len(samples.due_s) / window.seconds,
            latency=latency,
            server_cpu_us=cpu_s / len(samples.due_s) * MICRO,
        )

    async def load_kernel(self) -> None:
        """Have the indexes in memory. Raises ReleaseDamaged."""
        await self.searchers.run(load_shards, *([self.release] * self.searchers.count))

    async def kernel(self, run: int) -> Kernel:
        """The indexes in as many processes as there are cores: alone, then as nodes search them."""
        index_us, index_per_s = await self._searched(is_index_alone=True)
        scored_us, scored_per_s = await self._searched(is_index_alone=False)
        return Kernel(
            run=run,
            processes=self.searchers.count,
            index_us=index_us,
            index_queries_per_s=index_per_s,
            scored_us=scored_us,
            scored_queries_per_s=scored_per_s,
        )

    async def _searched(self, *, is_index_alone: bool) -> tuple[float, float]:
        """CPU of a query in microseconds, and queries a second of all processes."""
        order = KernelOrder(
            release=self.release,
            queries=self.asked.queries,
            queries_at_once=self.plan.queries_per_message,
            item_count=self.asked.item_count,
            width=self.asked.width,
            begin_s=time.monotonic() + START_S,
            seconds=self.plan.seconds,
            is_index_alone=is_index_alone,
        )
        done = await self.searchers.run(search_in_memory, *([order] * self.searchers.count))
        cpu_us = sum(each.cpu_s for each in done) / sum(each.queries for each in done) * MICRO
        return cpu_us, sum(each.queries / each.took_s for each in done)

    async def closed(self, run: int, mode: Mode, in_flight: int) -> Load:
        return await self.loads.closed(self.cluster, replace(self.asked, mode=mode), in_flight, run)

    async def open(self, run: int, rate: float) -> Load:
        return await self.loads.open(self.cluster, self.asked, rate, run)

    async def at_width(self, width: int, recall: Recall) -> Width:
        """What a width finds, and how many queries a second there are with it."""
        loads = replace(self.loads, seconds=min(self.plan.seconds, _CURVE_S_MAX))
        asked = replace(self.asked, width=width, mode=Mode.BATCH)
        rates = [
            (await loads.closed(self.cluster, asked, _CURVE_IN_FLIGHT, run)).queries_per_s
            for run in range(self.plan.runs)
        ]
        found = await recall.at(width)
        return Width(width=width, recall=found, queries_per_s=median(rates))

    async def curve(self, recall: Recall) -> list[Width]:
        """Every width until there is no more to be found."""
        points: list[Width] = []
        for width in widths_from(self.asked.item_count):
            points.append(await self.at_width(width, recall))
            if points[-1].recall >= _RECALL_ENOUGH:
                break
        return points
