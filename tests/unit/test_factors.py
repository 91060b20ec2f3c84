"""Embeddings recover the structure of a small world, and hyper-parameters are chosen that do so."""

from dataclasses import replace

import numpy as np
import pytest

from tests.kit.generated_tastes import GROUP_COUNT, generated_pairs, interactions_of_pairs
from training.best import best_items, best_places
from training.factor_search import STEP_COUNT, choose
from training.factors import Factors, FactorSettings, blas_threads, learn_factors
from training.held_out import HeldOutUsers
from training.split import Split, split

SETTINGS = FactorSettings(factors=GROUP_COUNT, regularization=0.1, alpha=5.0)


@pytest.fixture(scope="module")
def parts() -> Split:
    return split(interactions_of_pairs(generated_pairs()), 0)


def ndcg(parts: Split, factors: Factors) -> float:
    held_out = HeldOutUsers.of(parts, 0)
    best = best_items(factors.users, factors.items, held_out.histories, held_out.users, 20)
    return held_out.ndcg(places for places, _ in best)


def popularity_ndcg(parts: Split) -> float:
    held_out = HeldOutUsers.of(parts, 0)
    counts = np.bincount(parts.part.items, minlength=parts.part.item_count).astype(np.float32)
    users = np.ones((parts.part.user_count, 1), np.float32)
    best = best_items(users, counts[:, None], held_out.histories, held_out.users, 20)
    return held_out.ndcg(places for places, _ in best)


def test_embeddings_recover_who_likes_what(parts: Split) -> None:
    """Far better than popularity on what was held out; shuffled over the items, worse than it."""
    factors = learn_factors(parts.part, SETTINGS, seed=1, threads=2)
    shuffled = np.random.default_rng(0).permutation(parts.part.item_count)
    popular = popularity_ndcg(parts)
    assert ndcg(parts, factors) > 1.5 * popular
    assert ndcg(parts, replace(factors, items=factors.items[shuffled])) < popular


def test_the_same_seed_gives_the_same_embeddings(parts: Split) -> None:
    """Bit for bit, however often; another seed begins elsewhere."""
    first, again, other = (learn_factors(parts.part, SETTINGS, seed, 1) for seed in (1, 1, 2))
    assert np.array_equal(first.users, again.users) and np.array_equal(first.items, again.items)
    assert not np.array_equal(first.items, other.items)
    assert {first.users.dtype, first.items.dtype} == {np.dtype(np.float32)}


def test_a_discount_gives_unpopular_items_weight(parts: Split) -> None:
    """Popular items lose, unpopular ones gain in the mean score that users give them."""
    plain = learn_factors(parts.part, SETTINGS, 1, 1)
    discounted = learn_factors(parts.part, replace(SETTINGS, discount=1.0), 1, 1)
    counts = np.bincount(parts.part.items, minlength=parts.part.item_count)
    scores = [(each.users @ each.items.T).mean(axis=0) for each in (plain, discounted)]
    head, tail = counts >= np.quantile(counts, 0.8), counts <= np.quantile(counts, 0.2)
    assert (
        scores[1][head].mean() / scores[1][tail].mean()
        < scores[0][head].mean() / scores[0][tail].mean()
    )


def test_the_search_chooses_what_recovers_the_structure(parts: Split) -> None:
    """What is chosen, learned in full, beats popularity by a margin; every step is told."""
    steps: list[int] = []
    with blas_threads(1):
        choice = choose(parts, seed=0, threads=1, advance=steps.append)
        again = choose(parts, seed=0, threads=1, advance=steps.append)
    assert choice == again
    assert 2 * STEP_COUNT == sum(steps)
    assert ndcg(parts, learn_factors(parts.part, choice.settings, 0, 1)) > 1.5 * popularity_ndcg(parts)


def test_too_little_to_hold_out_is_no_error() -> None:
    """Users of fewer than five items: settings that need no trial, and no more factors than items."""
    pairs = [(0, 1), (0, 2), (1, 1), (2, 2), (2, 3)]
    whole = interactions_of_pairs(pairs)
    choice = choose(split(whole, 0), 0, 1, lambda count: None)
    assert 3 == choice.settings.factors
    factors = learn_factors(whole, choice.settings, 0, 1)
    assert np.isfinite(factors.users).all() and np.isfinite(factors.items).all()
    assert (np.linalg.norm(factors.users, axis=1) > 1e-3).all()  # Not shrunk to nothing.


def test_the_best_places_are_those_of_a_sort() -> None:
    """Descending, of equal scores the first place first, never what is excluded."""
    random = np.random.default_rng(4)
    for count in (0, 1, 7, 40, 60):
        scores = random.integers(0, 9, 50).astype(np.float32)
        scores[random.integers(0, 50, 6)] = -np.inf
        order = sorted((-score, place) for place, score in enumerate(scores.tolist()))
        expected = [place for score, place in order if score != np.inf][:count]
        assert expected == best_places(scores, count).tolist()
