"""Starts real processes, keeps them running, stops them. What dies is started again, ever later."""

import asyncio
import contextlib
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
    is_stopping: bool = False

    def __post_init__(self) -> None:
        self.failure = asyncio.get_running_loop().create_future()

    @property
    def pid_file(self) -> Path:
        return self.data_dir / "run" / f"{self.name}.pid"

    @property
    def output_file(self) -> Path:
        return self.data_dir / "output" / f"{self.name}.txt"

    async def run(self) -> None:
        """Keep the process running until stop(); what cannot run ends in `failure`."""
        delay_s, failures = RESTART_S_MIN, 0
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            code = await self._run_once()
            if self.is_stopping:
                return  # As asked.
            failures += 1
            if code == EXIT_DAMAGED or (not self.has_served and failures >= _START_FAILURES_MAX):
                self.failure.set_exception(ProcessFailed(f"{self.name}: {self._last_words(code)}"))
                return
            delay_s = RESTART_S_MIN if loop.time() - started_s > _WELL_S else delay_s
            self.tell(f"{self.name} ended ({_how(code)}), starts again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_S_MAX)

    async def _run_once(self) -> int:
        """Start the process, wait for its end and return its exit code."""
        # Its standard input is its lifeline: it closes when this process is gone, however it went.
        with self._open_output() as output:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self.module, *self.arguments, "--lifeline"),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid_file.write_text(f"{self.process.pid}\n")
        try:
            return await self.process.wait()
        finally:
            self.pid_file.unlink(missing_ok=True)

    def _open_output(self) -> BinaryIO:
        return open(self.output_file, "ab")

    async def stop(self, grace_s: float) -> None:
        """Ask the process to end; kill it where it has not after grace_s."""
        self.is_stopping = True
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            # A process that was suspended could not hear the next signal.
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            async with asyncio.timeout(grace_s):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _last_words(self, code: int) -> str:
        """The last line of its output."""
        with contextlib.suppress(OSError):
            content = self.output_file.read_bytes()[-_OUTPUT_TAIL_BYTES:].decode(errors="replace")
            lines = [line for line in content.splitlines() if line.strip()]
            if lines:
                return f"{lines[-1].removeprefix('error: ')} (see {self.output_file})"
        return f"it ended ({_how(code)}) without a word"


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
