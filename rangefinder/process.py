"""The life of a server process: configuration, event loop, signals, exit code.

Only this file knows uvloop. A process ends on SIGTERM or SIGINT, and, where it was started with
`--lifeline`, when its standard input closes: then whoever started it is gone.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import uvloop

from rangefinder.documents import from_values, from_yaml, to_values
from rangefinder.errors import RangefinderError, ReleaseDamaged
from rangefinder.storage import read_text
from rangefinder.telemetry.logs import LogConfig, configure, get_log

EXIT_FAILED = 1

_STANDARD_INPUT = 0

# Requests make few cycles, if any: a collection for every few hundred of them is enough.
_ALLOCATIONS_PER_COLLECTION = 20_000

# A file that cannot be served: starting again does not mend it.
EXIT_DAMAGED = 65


class ProcessConfig(Protocol):
    """What the configuration of every server process has."""

    @property
    def name(self) -> str: ...

    @property
    def log(self) -> LogConfig: ...


Config = TypeVar("Config", bound=ProcessConfig)
T = TypeVar("T")


def run(
    kind: type[Config], what: str, serve: Callable[[Config, bool], Coroutine[Any, Any, int | None]]
) -> None:
    """Run a server process: `serve` is given its configuration and whether it has a lifeline.

    An expected failure is one line and an exit code, no traceback. `serve` may return its own code.
    """
    try:
        config, has_lifeline = _read_config(kind, what)
        configure(config.log, config.name)
        collect_rarely()
        code = uvloop.run(serve(config, has_lifeline))
    except RangefinderError as error:
        get_log().error("process_failed", reason=error.reason, message=error.message)
        print(f"error: {error.message}", file=sys.stderr, flush=True)
        _exit(EXIT_DAMAGED if isinstance(error, ReleaseDamaged) else EXIT_FAILED)
    except Exception:
        get_log().exception("process_failed")
        _exit(EXIT_FAILED)
    _exit(code or 0)


def collect_rarely() -> None:
    """What is imported stays: it need not be looked at again and again while requests are served."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)


def run_on_uvloop(work: Coroutine[Any, Any, T]) -> T:
    """Run something to its end on the loop that servers run on; for those who measure them."""
    return uvloop.run(work)


def uvloop_runner() -> asyncio.Runner:
    """Runs one thing after another on one loop: gRPC wants no second one in a process."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _exit(code: int) -> NoReturn:
    """End at once: threads of gRPC or of a search may still run, and there is nothing to wait for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def until_stopped(*, lifeline: bool) -> None:
    """Return when this process is asked to end."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if lifeline:
        loop.add_reader(sys.stdin.fileno(), _watch_lifeline, stopped)
    await stopped.wait()
    if lifeline:
        with contextlib.suppress(ValueError, OSError):
            loop.remove_reader(sys.stdin.fileno())


def when_restart_asked(restart: Callable[[], None]) -> None:
    """Call `restart` on SIGHUP. That of a terminal which was closed asks to end, as SIGTERM does."""
    has_terminal = os.isatty(_STANDARD_INPUT)

    def heard() -> None:
        if has_terminal and not os.isatty(_STANDARD_INPUT):
            signal.raise_signal(signal.SIGTERM)
        else:
            restart()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, heard)


def _watch_lifeline(stopped: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stopped.set()


def _read_config(kind: type[Config], what: str) -> tuple[Config, bool]:
    """The configuration file, with what the command line overrides."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {what}",
        description=f"Runs one {what} process until SIGTERM.",
        epilog=f"example: python -m {what} --config process.yaml --listen 0.0.0.0:7100",
    )
    parser.add_argument("--config", type=Path, required=True, help="its YAML file")
    parser.add_argument("--name", help="overrides `name`, such as with a pod's own")
    parser.add_argument("--listen", help="overrides `listen` (host:port)")
    parser.add_argument("--metrics", help="overrides `metrics` (host:port)")
    parser.add_argument("--release", help="overrides `release` (a directory)")
    parser.add_argument("--workers", type=int, help="overrides `workers` of a router")
    parser.add_argument(
        "--ranker", dest="rankers", action="append", help="overrides `rankers` (host:port; repeat it)"
    )
    parser.add_argument("--lifeline", action="store_true", help="end when standard input closes, too")
    options = parser.parse_args()
    config = from_yaml(read_text(options.config), kind, str(options.config))
    given = {
        name: value
        for name in ("name", "listen", "metrics", "release", "rankers", "workers")
        if (value := getattr(options, name)) is not None
    }
    if given:
        config = from_values(to_values(config) | given, kind, "command line")
    return config, options.lifeline
