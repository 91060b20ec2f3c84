"""The yardstick of building and memory: hnswlib alone, in a process of its own.

python -m benchmarks.bare_hnswlib build X.npy METRIC START END     index rows [START, END)
python -m benchmarks.bare_hnswlib hold METRIC DIMENSION INDEX ...  load indexes, print private bytes
"""

import sys
from pathlib import Path

import hnswlib
import numpy as np

LINKS, BUILD_WIDTH = 16, 200  # As `rangefinder build` has them by default.


def build(rows_file: str, metric: str, start: int, end: int) -> None:
    """Index some rows on one thread, and throw the index away."""
    rows = np.load(rows_file, mmap_mode="r")[start:end].astype(np.float32)
    index = hnswlib.Index(space=metric, dim=rows.shape[1])
    index.init_index(max_elements=len(rows), M=LINKS, ef_construction=BUILD_WIDTH)
    index.add_items(rows, np.arange(len(rows)), num_threads=1)


def hold(metric: str, dimension: int, files: list[str]) -> int:
    """Load saved indexes, search each once, and return the private bytes of this process."""
    indexes = []
    for file in files:
        index = hnswlib.Index(space=metric, dim=dimension)
        index.load_index(file)
        index.knn_query(np.zeros((1, dimension), np.float32), k=10, num_threads=1)
        indexes.append(index)
    return private_bytes("self")


def private_bytes(pid: int | str) -> int:
    """RssAnon of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["build", rows_file, metric, start, end]:
            build(rows_file, metric, int(start), int(end))
        case ["hold", metric, dimension, *files]:
            sys.stdout.write(f"{hold(metric, int(dimension), files)}\n")
        case _:
            sys.exit(__doc__)
