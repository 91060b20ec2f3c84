"""Starts real processes, keeps them running, stops them. What dies is started again, ever later."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rangefinder.errors import RangefinderError
from rangefinder.process import EXIT_DAMAGED

RESTART_S_MIN, RESTART_S_MAX = 2.0, 30.0

# A process that ran for so long was well: it is started again as soon as one that never died.
_WELL_S = 60.0

# Before the cluster has answered once, a process that fails so often will not come up.
_START_FAILURES_MAX = 3

_OUTPUT_TAIL_BYTES = 4096

# An index is hundreds of megabytes that a search jumps about in: on pages of 2 MiB it waits for fewer
# address translations. What a request used stays for the next one: an end of the heap that is given
# back is a page of 2 MiB to be cleared again, 0.4 ms of CPU. Of glibc from 2.35 on; others ignore it.
_MALLOC = {"hugetlb": 1, "mmap_threshold": 4 << 20, "trim_threshold": 16 << 20}
MEMORY = {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in _MALLOC.items())}


class ProcessFailed(RangefinderError, status="UNAVAILABLE", reason="PROCESS_FAILED"):
    """A process that cannot run; its own last words are the message."""


@dataclass(slots=True, kw_only=True)
class Supervised:
    """One process and its files: run/<name>.pid and output/<name>.txt."""

    name: str
    module: str
    arguments: Sequence[str]
    data_dir: Path
    tell: Callable[[str], None]
    process: asyncio.subprocess.Process | None = None
    has_served: bool = False
    failure: "asyncio.Future[None]" = field(init=False)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _at_rest: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __post_init__(self) -> None:
        self.failure = asyncio.get_running_loop().create_future()
        self._at_rest.set()

    @property
    def pid_file(self) -> Path:
        return self.data_dir / "run" / f"{self.name}.pid"

    @property
    def output_file(self) -> Path:
        return self.data_dir / "output" / f"{self.name}.txt"

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
            failures += 1
            if not self.has_served and (end.is_for_good or failures >= _START_FAILURES_MAX):
                self.failure.set_exception(ProcessFailed(f"{self.name}: {end.last_words}"))
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
            words = f"{error.filename or sys.executable}: {(error.strerror or '').lower()}"
            return _End(how=words, last_words=words, is_for_good=True)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return _End(how=how, last_words=self._last_words(how), is_for_good=code == EXIT_DAMAGED)

    async def _exit_code(self) -> int:
        """Start the process and return its exit code once it has ended. Raises OSError."""
        # Its standard input is its lifeline: it closes when this process is gone, however it went.
        with self._open_output() as output:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self.module, *self.arguments, "--lifeline"),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=MEMORY | os.environ,
            )
        try:
            self.pid_file.write_text(f"{self.process.pid}\n")
            if self._stopping.is_set():
                self._ask_to_end()  # It was being started when all were told to stop.
            return await self.process.wait()
        finally:
            self.pid_file.unlink(missing_ok=True)

    def _open_output(self) -> BinaryIO:
        return open(self.output_file, "ab")

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

    def _last_words(self, how: str) -> str:
        """The last line of its output."""
        with contextlib.suppress(OSError):
            content = self.output_file.read_bytes()[-_OUTPUT_TAIL_BYTES:].decode(errors="replace")
            lines = [line for line in content.splitlines() if line.strip()]
            if lines:
                return f"{lines[-1].removeprefix('error: ')} (see {self.output_file})"
        return f"it ended ({how}) without a word"


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How a process ended, or why it did not start."""

    how: str
    last_words: str
    is_for_good: bool  # Starting it again does not mend what it ended of.
