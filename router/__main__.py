"""`python -m router --config FILE`: one router, of one process or of several workers."""

import os

# Before NumPy is loaded: a router multiplies no matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rangefinder.process import run
from router.config import RouterConfig
from router.serve import serve
from router.workers import supervise


async def _serve(config: RouterConfig, has_lifeline: bool) -> int:
    if config.workers > 1:
        return await supervise(config, has_lifeline)
    await serve(config, has_lifeline)
    return 0


if __name__ == "__main__":
    run(RouterConfig, "router", _serve)
