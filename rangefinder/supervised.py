"""A child process that is kept running: what dies is started again, ever later.

Where its output goes and how it is started is a Launcher's. So `rangefinder up` keeps its processes,
and a router its workers.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from rangefinder.errors import RangefinderError
from rangefinder.process import EXIT_DAMAGED, EXIT_FAILED

RESTART_S_MIN, RESTART_S_MAX = 2.0, 30.0

# A process that ran for so long was well: it is started again as soon as one that never died.
_WELL_S = 60.0

# Before the cluster has answered once, a process that fails so often will not come up.
_START_FAILURES_MAX = 3


class ProcessFailed(RangefinderError, status="UNAVAILABLE", reason="PROCESS_FAILED"):
    """A process that cannot run; its own last words are the message."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Launcher(Protocol):
    """How a process is started, and what is known of it when it has ended."""

    async def start(self) -> asyncio.subprocess.Process:
        """Start the process anew. Raises OSError."""
        ...

    def record(self, pid: int | None) -> None:
        """Note which process runs; None: none any more. Raises OSError."""
        ...

    def last_words(self, how: str) -> str:
        """Why it ended, as it said itself, where it did; `how` is what the system says."""
        ...


@dataclass(slots=True, kw_only=True)
class Supervised:
    """One process."""

    name: str
    launcher: Launcher
    tell: Callable[[str], None]
    process: asyncio.subprocess.Process | None = None
    start_failures_max: int = _START_FAILURES_MAX
    has_served: bool = False
    failure: "asyncio.Future[None]" = field(init=False)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _at_rest: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _is_restarting: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.failure = asyncio.get_running_loop().create_future()
        self._at_rest.set()

    async def run(self) -> None:
        """Keep the process running until stop(); what cannot run ends in `failure`.

        Once the cluster has served, nothing ends it but stop(): the other processes serve on.
        """
        self._at_rest.clear()
        try:
            await self._keep_running()
        finally:
            self._at_rest.set()

    async def _keep_running(self) -> None:
        delay_s, failures = RESTART_S_MIN, 0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started_s = loop.time()
            end = await self._run_once()
            if self._stopping.is_set():
                return  # As asked.
            if self._is_restarting:
                self._is_restarting = False
                continue  # As asked, too.
            failures += 1
            if not self.has_served and (end.is_for_good or failures >= self.start_failures_max):
                self.failure.set_exception(
                    ProcessFailed(f"{self.name}: {end.last_words}", end.exit_code)
                )
                return
            delay_s = RESTART_S_MIN if loop.time() - started_s > _WELL_S else delay_s
            why = end.last_words if end.is_for_good else end.how
            self.tell(f"{self.name} ended ({why}), starts again in {delay_s:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)
            delay_s = min(delay_s * 2, RESTART_S_MAX)

    async def _run_once(self) -> "_End":
        """Start the process and wait for its end."""
        try:
            code = await self._exit_code()
        except OSError as error:
            await self._kill()
            words = f"{error.filename or self.name}: {(error.strerror or '').lower()}"
            return _End(how=words, last_words=words, exit_code=EXIT_FAILED, is_for_good=True)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return _End(
            how=how,
            last_words=self.launcher.last_words(how),
            exit_code=code if code > 0 else EXIT_FAILED,
            is_for_good=code == EXIT_DAMAGED,
        )

    async def _exit_code(self) -> int:
        """Start the process and return its exit code once it has ended. Raises OSError."""
        try:
            self.process = await self.launcher.start()
            self.launcher.record(self.process.pid)
            if self._stopping.is_set():
                self._ask_to_end()  # It was being started when all were told to stop.
            return await self.process.wait()
        finally:
            self.launcher.record(None)

    async def restart(self, grace_s: float) -> None:
        """Ask the process to end, or kill it after grace_s; it starts again at once."""
        if self.process is None or self.process.returncode is not None:
            return  # It is about to, anyway.
        self._is_restarting = True
        self._ask_to_end()
        try:
            await asyncio.wait_for(self.process.wait(), grace_s)
        except TimeoutError:
            await self._kill()

    async def stop(self, grace_s: float) -> None:
        """Ask the process to end; kill it where it has not after grace_s."""
        self._stopping.set()
        self._ask_to_end()
        try:
            async with asyncio.timeout(grace_s):
                await self._at_rest.wait()
        except TimeoutError:
            await self._kill()
            await self._at_rest.wait()

    def _ask_to_end(self) -> None:
        if self.process is None or self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            # A process that was suspended could not hear the next signal.
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()

    async def _kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How a process ended, or why it did not start."""

    how: str
    last_words: str
    exit_code: int
    is_for_good: bool  # Starting it again does not mend what it ended of.
