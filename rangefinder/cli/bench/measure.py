"""The order of a run: what is measured when. Everything that is compared is measured in turn."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rangefinder.cli.bench.calls import Asked
from rangefinder.cli.bench.cluster import Cluster, CpuSeconds
from rangefinder.cli.bench.echo import EchoServer
from rangefinder.cli.bench.figures import Cpu, Echo, Kernel, Load, Width
from rangefinder.cli.bench.kernel import KernelOrder, KernelWork, search_in_memory
from rangefinder.cli.bench.lists import Mode
from rangefinder.cli.bench.load import LoadOrder
from rangefinder.cli.bench.recall import Recall, widths_from
from rangefinder.cli.bench.schedule import Latency, Samples
from rangefinder.cli.bench.workers import Workers, make_load
from rangefinder.errors import InputRefused
from rangefinder.telemetry.process import cpu_seconds

# Orders reach all processes by then.
_START_S = 0.25

# Left out of what is measured: connections are made, caches filled.
_WARM_S = 0.3

# Load goes on a little after the last moment that counts: until then it is as it was.
_TAIL_S = 0.05

# Widths of the curve end once there is no more to be found.
_RECALL_ENOUGH = 0.999
_CURVE_S_MAX = 1.0
_CURVE_IN_FLIGHT = 8

MICRO = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, how often, and with how much at once."""

    in_flight: Sequence[int]
    modes: Sequence[Mode]
    seconds: float
    runs: int
    queries_per_message: int


@dataclass(frozen=True, slots=True)
class Window:
    """The time that counts, on the monotonic clock."""

    begin_s: float
    end_s: float

    @classmethod
    def soon(cls, seconds: float) -> "Window":
        begin_s = time.monotonic() + _START_S + _WARM_S
        return cls(begin_s, begin_s + seconds)

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Who makes load, who searches in memory, and what they meet."""

    plan: Plan
    cluster: Cluster
    echo: EchoServer
    loaders: Workers
    searchers: Workers
    release: Path
    asked: Asked  # One query a call; the address is that of the cluster.

    async def echoes(self, run: int, in_flight: int) -> Echo:
        """Empty calls, so many in flight."""
        asked = replace(self.asked, address=self.echo.address, mode=Mode.ECHO)
        window = Window.soon(self.plan.seconds)
        making = asyncio.create_task(self._make(asked, window, in_flight, None), name="echo")
        await asyncio.sleep(window.begin_s - time.monotonic())
        cpu_s = cpu_seconds(self.echo.pid)
        await asyncio.sleep(window.end_s - time.monotonic())
        cpu_s = cpu_seconds(self.echo.pid) - cpu_s
        samples = (await making).ended_within(window.begin_s, window.end_s)
        latency = Latency.of(samples)
        if latency is None:
            raise InputRefused("not one empty call was answered: give more --seconds")
        count = len(samples.due_s)
        return Echo(
            run=run,
            in_flight=in_flight,
            calls_per_s=count / window.seconds,
            latency=latency,
            server_cpu_us=cpu_s / count * MICRO,
        )

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
        order = KernelOrder(
            release=self.release,
            queries=self.asked.queries,
            queries_at_once=self.plan.queries_per_message,
            item_count=self.asked.item_count,
            width=self.asked.width,
            begin_s=time.monotonic() + _START_S,
            seconds=self.plan.seconds,
            is_index_alone=is_index_alone,
        )
        done: list[KernelWork] = await self.searchers.run(
            search_in_memory, *([order] * self.searchers.count)
        )
        cpu_us = sum(each.cpu_s for each in done) / sum(each.queries for each in done) * MICRO
        return cpu_us, sum(each.queries / each.took_s for each in done)

    async def load(self, run: int, mode: Mode, in_flight: int) -> Load:
        """A closed loop."""
        asked, window = replace(self.asked, mode=mode), Window.soon(self.plan.seconds)
        making = asyncio.create_task(self._make(asked, window, in_flight, None), name=str(mode))
        cpu = await self.cluster.cpu_between(window.begin_s, window.end_s)
        samples = (await making).ended_within(window.begin_s, window.end_s)
        return self._load(run, asked, in_flight, None, window, samples, cpu)

    async def open_load(self, run: int, rate: float) -> Load:
        """An open loop of single queries."""
        asked, window = replace(self.asked, mode=Mode.UNARY), Window.soon(self.plan.seconds)
        making = asyncio.create_task(self._make(asked, window, 0, rate), name="open")
        cpu = await self.cluster.cpu_between(window.begin_s, window.end_s)
        samples = (await making).due_within(window.begin_s, window.end_s)
        return self._load(run, asked, 0, rate, window, samples, cpu)

    def _load(
        self,
        run: int,
        asked: Asked,
        in_flight: int,
        rate: float | None,
        window: Window,
        samples: Samples,
        cpu: CpuSeconds | None,
    ) -> Load:
        each = 1 if asked.mode is Mode.UNARY else asked.queries_per_message
        queries = (len(samples.due_s) - samples.failed) * each
        late_ms = (samples.sent_s - samples.due_s) * 1000
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
            failures=dict(samples.failures),
            sent_late_ms=float(np.percentile(late_ms, 99)) if len(late_ms) else 0.0,
        )

    async def _make(self, asked: Asked, window: Window, in_flight: int, rate: float | None) -> Samples:
        """All generators at once, each with its part."""
        count = self.loaders.count if rate is not None else min(self.loaders.count, in_flight)
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
        return Samples.together(await self.loaders.run(make_load, *orders))

    async def through(self, rate: float, seconds: float) -> tuple[Window, "asyncio.Task[Samples]"]:
        """Begin an open loop of single queries; what it met is there when the task is done."""
        window = Window.soon(seconds)
        asked = replace(self.asked, mode=Mode.UNARY)
        making = asyncio.create_task(self._make(asked, window, 0, rate), name="through-a-fault")
        return window, making

    async def curve(self, recall: Recall) -> list[Width]:
        """Recall and throughput of each width, until there is no more to be found."""
        points: list[Width] = []
        brief = replace(self, plan=replace(self.plan, seconds=min(self.plan.seconds, _CURVE_S_MAX)))
        for width in widths_from(self.asked.item_count):
            at_width = replace(brief, asked=replace(self.asked, width=width))
            load = await at_width.load(0, Mode.BATCH, _CURVE_IN_FLIGHT)
            found = await recall.at(width)
            points.append(Width(width=width, recall=found, queries_per_s=load.queries_per_s))
            if found >= _RECALL_ENOUGH:
                break
        return points


def _per_query(cpu: CpuSeconds | None, queries: int) -> Cpu | None:
    if cpu is None or queries == 0:
        return None
    return Cpu(routers=cpu.routers / queries * MICRO, nodes=cpu.nodes / queries * MICRO)
