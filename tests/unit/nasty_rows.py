"""Rows and queries that look for trouble: duplicates, zero, ties, norms from 1e-20 to 1e18."""

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]

DIMENSIONS = (1, 2, 3, 8, 17)


def _dimension(seed: int) -> int:
    return DIMENSIONS[seed % len(DIMENSIONS)]


def nasty_rows(seed: int) -> Rows:
    """1 to 80 rows: the same seed gives the same ones."""
    random = np.random.default_rng(seed)
    dimension = _dimension(seed)
    plain = random.standard_normal((30, dimension))
    small_integers = random.integers(-2, 3, (20, dimension))  # Many exact ties.
    scales = 10.0 ** random.integers(-20, 19, (20, 1)) / np.sqrt(dimension)
    zeros = np.zeros((2, dimension))
    nearly_equal = plain[:4] * (1 + 1e-7 * random.standard_normal((4, 1)))
    rows = np.concatenate(
        [plain, small_integers, plain[:20] * scales, zeros, -plain[:2], plain[2:4], nearly_equal]
    )
    chosen = random.choice(len(rows), random.integers(1, len(rows) + 1), replace=True)
    return rows[chosen].astype(np.float32)


def nasty_queries(seed: int) -> Rows:
    """1 to 6 queries for the rows of the same seed: rows themselves, others, far ones, zero."""
    random = np.random.default_rng([seed, 1])
    dimension = _dimension(seed)
    rows = nasty_rows(seed)
    plain = random.standard_normal((3, dimension))
    queries = np.concatenate(
        [
            plain,
            rows[random.integers(len(rows), size=2)],
            random.integers(-2, 3, (2, dimension)),
            plain[:2] * 10.0 ** random.integers(-20, 19, (2, 1)) / np.sqrt(dimension),
            np.zeros((1, dimension)),
        ]
    )
    chosen = random.permutation(len(queries))[: random.integers(1, 7)]
    return queries[chosen].astype(np.float32)
