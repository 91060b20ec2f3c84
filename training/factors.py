"""Embeddings of users and items by alternating least squares (Hu, Koren, Volinsky, ICDM 2008).

The score of an item for a user is the inner product of both. Only this file knows the library.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from implicit.cpu.als import AlternatingLeastSquares
from implicit.recommender_base import ModelFitError
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from rangefinder.errors import InputRefused
from training.interactions import Interactions

Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorSettings:
    """Hyper-parameters. An interaction weighs alpha, what did not happen 1.

    With a discount, alpha is that of the average interaction, and popular items' weigh less: in
    proportion to their popularity ^ -discount.
    """

    factors: int
    regularization: float
    alpha: float
    discount: float = 0.0
    iterations: int = 12

    @property
    def in_words(self) -> str:
        return (
            f"{self.factors} factors, regularization {self.regularization:g}, alpha {self.alpha:g},"
            f" discount {self.discount:g}, {self.iterations} iterations"
        )


@dataclass(frozen=True, slots=True)
class Factors:
    """One row for each user and for each item, by code; zeros for those without interactions."""

    users: Embeddings
    items: Embeddings


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Matrix products in the block take at most so many threads."""
    with threadpool_limits(count, "blas"):
        yield


def learn_factors(
    interactions: Interactions, settings: FactorSettings, seed: int, threads: int
) -> Factors:
    """Learn from which pairs there are; ratings and times play no part. Raises InputRefused."""
    # The library's threads are its own; those of BLAS would be in their way, and it warns of them.
    with blas_threads(1):
        model = AlternatingLeastSquares(
            factors=settings.factors,
            regularization=settings.regularization,
            alpha=settings.alpha,
            iterations=settings.iterations,
            random_state=seed,
            num_threads=threads,
        )
        try:
            model.fit(_matrix_of(interactions, settings.discount), show_progress=False)
        except ModelFitError:
            raise InputRefused(f"no embeddings come out of this ({settings.in_words})") from None
    return Factors(np.ascontiguousarray(model.user_factors), np.ascontiguousarray(model.item_factors))


def _matrix_of(interactions: Interactions, discount: float) -> csr_matrix:
    """Users by items: what each interaction weighs, 1 on average."""
    counts = np.bincount(interactions.users, minlength=interactions.user_count)
    popularity = np.bincount(interactions.items, minlength=interactions.item_count)
    weights = (popularity[interactions.items] ** -discount).astype(np.float32)
    return csr_matrix(
        (weights / weights.mean(), interactions.items, np.concatenate([[0], np.cumsum(counts)])),
        shape=(interactions.user_count, interactions.item_count),
    )
