"""`python -m router --config FILE`: one router."""

import os

# Before NumPy is loaded: a router multiplies no matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rangefinder.process import run
from router.config import RouterConfig
from router.serve import serve

if __name__ == "__main__":
    run(RouterConfig, "router", serve)
