"""`python -m router.worker`: one of the workers that router/workers.py starts, on their common port.

Its standard input is a socket to who started it: the lifeline, and where it says what it has come to.

    STARTED <host:port of its metrics>    its files are read
    READY                                 it accepts connections
    ALIVE                                 every second: its loop turns
"""

import asyncio
import contextlib
import os
import socket

# Before NumPy is loaded: a router multiplies no matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys

from rangefinder.process import run
from router.config import RouterConfig
from router.serve import serve

_BEAT_S = 1.0


async def _serve(config: RouterConfig, has_lifeline: bool) -> None:
    beating = asyncio.create_task(_beat(), name="beat")
    await serve(config, has_lifeline, tell=_tell)
    beating.cancel()


async def _beat() -> None:
    """Tell again and again that this process does not hang; it never waits for who is told."""
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as told:
        while True:
            await asyncio.sleep(_BEAT_S)
            with contextlib.suppress(OSError):
                told.send(b"ALIVE\n", socket.MSG_DONTWAIT)


def _tell(words: str) -> None:
    os.write(sys.stdin.fileno(), f"{words}\n".encode())


if __name__ == "__main__":
    run(RouterConfig, "router.worker", _serve)
