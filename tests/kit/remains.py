"""What is left of processes that should be gone."""

from pathlib import Path

import psutil


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that were told of a file below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue  # It ended while it was looked at.
        if any(word.startswith(f"{folder}/") for word in words):
            found.append(" ".join(words))
    return found


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def survivors(processes: list[psutil.Process], *, within_s: float) -> list[psutil.Process]:
    """Those that have not ended by then."""
    return list(psutil.wait_procs(processes, timeout=within_s)[1])
