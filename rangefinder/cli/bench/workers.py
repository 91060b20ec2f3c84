"""Processes that make load or search in memory: spawned, alive for a whole run, gone with this one."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import TypeVar

from rangefinder.cli.bench.load import LoadOrder, generate
from rangefinder.cli.bench.schedule import Samples
from rangefinder.process import collect_rarely, uvloop_runner

T = TypeVar("T")
R = TypeVar("R")

# One loop for all loads of a process: gRPC wants no second one.
_runner: asyncio.Runner | None = None


class Workers:
    """So many processes that are given one piece of work each, at once."""

    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        self._pool, self.count = pool, count

    async def run(self, work: Callable[[T], R], *orders: T) -> list[R]:
        """What each process made of its order."""
        assert len(orders) <= self.count
        loop = asyncio.get_running_loop()
        return list(
            await asyncio.gather(*(loop.run_in_executor(self._pool, work, each) for each in orders))
        )


@contextmanager
def workers(count: int) -> Iterator[Workers]:
    """Processes until the block ends; Ctrl-C is for this one, which ends them."""
    strangers = set(active_children())
    pool = ProcessPoolExecutor(count, get_context("spawn"), _begin)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for each in [pool.submit(_nothing) for _ in range(count)]:
            each.result()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield Workers(pool, count)
    except BaseException:
        for process in set(active_children()) - strangers:
            process.terminate()  # What they still do is for nothing.
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def make_load(order: LoadOrder) -> Samples:
    """In a worker: see load.py."""
    global _runner  # noqa: PLW0603 (what a process of a pool keeps from one order to the next)
    if _runner is None:
        _runner = uvloop_runner()
    return _runner.run(generate(order))


def _begin() -> None:
    collect_rarely()
    Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _nothing() -> None:
    """Makes the pool start a process, which then has imported what it will need."""
