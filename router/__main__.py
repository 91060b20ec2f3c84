"""`python -m router --config FILE`: one router, of one process or of several workers."""

import os

# Before NumPy is loaded: a router multiplies no matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rangefinder.process import run
from router.config import RouterConfig


async def _serve(config: RouterConfig, has_lifeline: bool) -> int:
    # Who only watches over workers needs nothing of what they serve with, and stays small.
    if config.workers > 1:
        from router.workers import supervise

        return await supervise(config, has_lifeline)
    from router.serve import serve

    await serve(config, has_lifeline)
    return 0


if __name__ == "__main__":
    run(RouterConfig, "router", _serve)
