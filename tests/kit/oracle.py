"""The brute-force truth. It shares no code with what it checks, and is written for clarity."""

import numpy as np
import numpy.typing as npt

FLOAT32_MAX = 3.4028234663852886e38


def splitmix64(value: int) -> int:
    """The reference implementation of the finalizer, on Python integers."""
    value &= 2**64 - 1
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
    return value ^ (value >> 31)


def scores(metric: str, rows: npt.NDArray[np.float32], query: npt.NDArray[np.float32]) -> list[float]:
    """Similarity of every row and one query, each rounded to float32."""
    x, q = rows.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        exact = -np.square(x - q).sum(axis=1)
    elif metric == "ip":
        exact = (x * q).sum(axis=1)
    else:
        lengths = np.sqrt((x * x).sum(axis=1, keepdims=True))
        unit = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)
        stored = unit.astype(np.float32).astype(np.float64)  # Rows are kept at unit length.
        length = np.sqrt((q * q).sum())
        exact = (stored * q).sum(axis=1) / length if length > 0 else np.zeros(len(x))
        exact = exact.clip(-1, 1)
    rounded: list[float] = exact.clip(-FLOAT32_MAX, FLOAT32_MAX).astype(np.float32).tolist()
    return rounded


def best(
    all_scores: list[float], keys: list[int], item_count: int, excluded: frozenset[int] = frozenset()
) -> list[tuple[int, float]]:
    """(row, score) of the best rows: score descending, then key ascending."""
    order = sorted(
        (row for row in range(len(keys)) if row not in excluded),
        key=lambda row: (-all_scores[row], keys[row]),
    )
    return [(row, all_scores[row]) for row in order[:item_count]]
