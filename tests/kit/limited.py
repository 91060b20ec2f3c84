"""The command under a limit of the system: `python -m tests.kit.limited data|file BYTES ARGUMENT...`.

data: the process may grow by so much private memory. file: no file may grow longer. The argument
`load` reads an array at once instead, which shows that the limit bites.
"""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from rangefinder.cli import build, main

ROOT = Path(__file__).resolve().parents[2]


def run_limited(what: str, size: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run this file."""
    command = [sys.executable, "-m", "tests.kit.limited", what, str(size), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def limit(what: str, size: int) -> None:
    if what == "data":
        status = Path("/proc/self/status").read_text()
        held = re.search(r"VmData:\s+(\d+) kB", status)
        assert held is not None
        size += int(held[1]) << 10
    kind = {"data": resource.RLIMIT_DATA, "file": resource.RLIMIT_FSIZE}[what]
    resource.setrlimit(kind, (size, size))


if __name__ == "__main__":
    assert build.command is not None  # What the command imports when it runs, it imports now.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    limit(sys.argv[1], int(sys.argv[2]))
    del sys.argv[1:3]
    if sys.argv[1] == "load":
        np.load(sys.argv[2])
    else:
        main.main()
