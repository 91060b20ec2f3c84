"""The workers of a router: processes that accept connections at one port, watched over by this one.

A worker listens from when it is READY until it drains, so that no connection meets one that cannot
answer; one that hangs is killed and started again. On SIGHUP each is replaced: its successor is READY
before it is told to end.
"""

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass

from rangefinder.process import until_stopped, when_restart_asked
from rangefinder.shared_port import held_port
from rangefinder.supervised import ProcessFailed, Supervised
from rangefinder.telemetry.gathered import serve_gathered
from rangefinder.telemetry.logs import Log, get_log
from rangefinder.telemetry.metrics import Counts
from router.config import RouterConfig
from router.worker_launcher import SILENT_S_MAX, WorkerLauncher

# Reading tables and connecting to nodes takes a second or two; a successor that needs more is given up.
_READY_S_MAX = 60.0

# Beside what a worker may take to drain: to notice the signal, and to end.
_STOP_MARGIN_S = 2.0


async def supervise(config: RouterConfig, has_lifeline: bool) -> int:
    """Run the workers until this process is asked to end; returns its exit code.

    Raises AddressInUse. A worker that cannot start has said why: its exit code is returned.
    """
    with held_port(config.listen) as address:
        crew = Crew(config, address)
        killed = Counts(
            "rangefinder_workers_killed",
            "Workers that were killed because they hung.",
            "worker",
            lambda: crew.killed,
        )
        serve_gathered(config.metrics, crew.metrics_addresses, killed)
        get_log().info("router_started", address=address, workers=config.workers)
        stopped = asyncio.create_task(until_stopped(lifeline=has_lifeline), name="until-stopped")
        running = asyncio.create_task(crew.run(), name="crew")
        await asyncio.wait((stopped, running), return_when=asyncio.FIRST_COMPLETED)
        get_log().info("router_draining")
        stopped.cancel()
        running.cancel()  # Where it still runs: nothing is started any more.
        _, code = await asyncio.gather(stopped, running, return_exceptions=True)
        await crew.stop()
    if isinstance(code, Exception):
        raise code
    return code if isinstance(code, int) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    launcher: WorkerLauncher
    supervised: Supervised
    running: "asyncio.Task[None]"


class Crew:
    """All workers of a router."""

    def __init__(self, config: RouterConfig, address: str) -> None:
        self._config, self._address = config, address
        self._workers: list[_Worker] = []
        self.killed: Counter[str] = Counter()  # Those that hung, by name.
        self._replace_asked = asyncio.Event()
        self._log: Log = get_log()

    def metrics_addresses(self) -> dict[str, str]:
        """Where the metrics of each worker are, by its name."""
        return {
            worker.supervised.name: worker.launcher.metrics
            for worker in list(self._workers)
            if worker.launcher.metrics
        }

    async def run(self) -> int:
        """Start the workers and replace them whenever SIGHUP comes; returns where one cannot start."""
        when_restart_asked(self._replace_asked.set)
        try:
            await self._start_all()
            while True:
                await self._replace_asked.wait()
                self._replace_asked.clear()
                await self._replace_all()
        except ProcessFailed as failed:
            return failed.exit_code

    async def stop(self) -> None:
        """Let every worker drain, all at once."""
        await asyncio.gather(*(self._stop(worker) for worker in list(self._workers)))

    async def _start_all(self) -> None:
        """Start the first worker, and the others once it has read what all of them read."""
        first = self._start(1)
        await self._until(first.launcher.started, first)
        for number in range(2, self._config.workers + 1):
            self._start(number)
        await self._until(first.launcher.ready, first)
        for worker in self._workers:
            worker.supervised.has_served = True  # Whatever they die of: the first one serves on.
        for worker in self._workers:
            await worker.launcher.ready.wait()
        self._log.info("router_ready", workers=len(self._workers))

    def _start(self, number: int) -> _Worker:
        name = f"{self._config.name}/{number}"
        launcher = WorkerLauncher(name, self._address, sys.argv[1:], self._on_silent)
        supervised = Supervised(
            name=launcher.name,
            launcher=launcher,
            tell=self._tell,
            start_failures_max=1,
        )
        running = asyncio.create_task(supervised.run(), name=launcher.name)
        worker = _Worker(launcher=launcher, supervised=supervised, running=running)
        self._workers.append(worker)
        return worker

    def _on_silent(self, name: str) -> None:
        self._log.error("worker_silent", worker=name, seconds=SILENT_S_MAX)
        self.killed[name] += 1

    def _tell(self, text: str) -> None:
        self._log.warning("worker_ended", why=text)

    async def _until(self, event: asyncio.Event, worker: _Worker) -> None:
        """Return when a worker has come so far. Raises ProcessFailed."""
        waiting = asyncio.create_task(event.wait(), name=f"until-{worker.supervised.name}")
        try:
            await asyncio.wait(
                (waiting, worker.supervised.failure), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        if worker.supervised.failure.done():
            worker.supervised.failure.result()

    async def _replace_all(self) -> None:
        """Replace each worker by one that is READY; where there is none, leave the others."""
        self._log.info("workers_replacing")
        for number, old in enumerate(list(self._workers), 1):
            new = self._start(number)
            try:
                async with asyncio.timeout(_READY_S_MAX):
                    await self._until(new.launcher.ready, new)
            except (TimeoutError, ProcessFailed) as error:
                why = str(error) or f"not READY within {_READY_S_MAX:g} s"
                self._log.error("workers_not_replaced", worker=new.supervised.name, why=why)
                await self._stop(new)
                return
            new.supervised.has_served = True
            await self._stop(old)
        self._log.info("workers_replaced")

    async def _stop(self, worker: _Worker) -> None:
        config = self._config
        await worker.supervised.stop(config.drain_announce_s + config.drain_s + _STOP_MARGIN_S)
        await worker.running
        if not worker.supervised.failure.cancel():
            worker.supervised.failure.exception()  # It was told of, or nobody waits for it any more.
        self._workers.remove(worker)
