"""`python -m ranker_service --config FILE`: one ranking service."""

import os

# Before NumPy is loaded: scoring runs on the service's own threads, one core each.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rangefinder.process import run
from ranker_service.config import RankerConfig
from ranker_service.serve import serve

if __name__ == "__main__":
    run(RankerConfig, "ranker_service", serve)
