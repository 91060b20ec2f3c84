"""What the operating system knows of processes, this one first. Only this file knows psutil."""

import time
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes. `private` is what no file backs (RssAnon); `limit` is that of the control group."""

    resident: int
    private: int
    limit: int  # 0: none.


_LIMIT_FILE = Path("/sys/fs/cgroup/memory.max")
_SCHEDULED_FILE = Path("/proc/thread-self/schedstat")


def memory() -> Memory:
    """Memory of this process now."""
    info = psutil.Process().memory_info()
    return Memory(resident=info.rss, private=info.rss - getattr(info, "shared", 0), limit=_limit())


def start_time_s() -> float:
    """When this process was started: seconds since 1970."""
    return float(psutil.Process().create_time())


def busy_s() -> float:
    """Seconds for which this process has run, and its calling thread has waited for a processor.

    Waiting is known on Linux alone (/proc/thread-self/schedstat, in nanoseconds).
    """
    try:
        waited_ns = int(_SCHEDULED_FILE.read_text().split()[1])
    except (OSError, IndexError):
        waited_ns = 0
    return time.process_time() + waited_ns / 1e9


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children since they began; 0 of one that is gone."""
    try:
        process = psutil.Process(pid)
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    except psutil.Error:
        return 0.0
    return float(sum(each.user + each.system for each in times))


def _limit() -> int:
    try:
        text = _LIMIT_FILE.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0
