"""`python -m router.worker`: one of the workers that router/workers.py starts, on their common port.

Its standard input is a socket to who started it: the lifeline, and where it says what it has come to.

    STARTED <host:port of its metrics>    its files are read
    READY                                 it accepts connections
"""

import os

# Before NumPy is loaded: a router multiplies no matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys

from rangefinder.process import run
from router.config import RouterConfig
from router.serve import serve


async def _serve(config: RouterConfig, has_lifeline: bool) -> None:
    await serve(config, has_lifeline, tell=_tell)


def _tell(words: str) -> None:
    os.write(sys.stdin.fileno(), f"{words}\n".encode())


if __name__ == "__main__":
    run(RouterConfig, "router.worker", _serve)
