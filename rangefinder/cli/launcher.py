"""How `rangefinder up` starts a process: in a session of its own, with files in the data directory."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_OUTPUT_TAIL_BYTES = 4096

# An index is hundreds of megabytes that a search jumps about in: on pages of 2 MiB it waits for fewer
# address translations. What a request used stays for the next one: an end of the heap that is given
# back is a page of 2 MiB to be cleared again. Of glibc from 2.35 on; others ignore it.
_MALLOC = {"hugetlb": 1, "mmap_threshold": 4 << 20, "trim_threshold": 16 << 20}
MALLOC_SETTINGS = {
    "GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in _MALLOC.items())
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLauncher:
    """A process and its files: run/<name>.pid while it runs, and output/<name>.txt."""

    name: str
    module: str
    arguments: Sequence[str]
    data_dir: Path

    @property
    def pid_file(self) -> Path:
        return self.data_dir / "run" / f"{self.name}.pid"

    @property
    def output_file(self) -> Path:
        return self.data_dir / "output" / f"{self.name}.txt"

    async def start(self) -> asyncio.subprocess.Process:
        # Its standard input is its lifeline: it closes when this process is gone, however it went.
        with self._open_output() as output:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self.module, *self.arguments, "--lifeline"),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=MALLOC_SETTINGS | os.environ,
            )

    def _open_output(self) -> BinaryIO:
        return open(self.output_file, "ab")

    def record(self, pid: int | None) -> None:
        if pid is None:
            self.pid_file.unlink(missing_ok=True)
        else:
            self.pid_file.write_text(f"{pid}\n")

    def last_words(self, how: str) -> str:
        """The last line of its output."""
        with contextlib.suppress(OSError):
            content = self.output_file.read_bytes()[-_OUTPUT_TAIL_BYTES:].decode(errors="replace")
            lines = [line for line in content.splitlines() if line.strip()]
            if lines:
                return f"{lines[-1].removeprefix('error: ')} (see {self.output_file})"
        return f"it ended ({how}) without a word"
