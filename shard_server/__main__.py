"""`python -m shard_server --config FILE`: one node."""

import os

# Before NumPy is loaded: searches run on the node's own threads, one core each.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rangefinder.process import run
from shard_server.config import NodeConfig
from shard_server.serve import serve

if __name__ == "__main__":
    run(NodeConfig, "shard_server", serve)
