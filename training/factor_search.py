"""Hyper-parameters of embeddings and of item-to-item, chosen on what was held out, no test file.

A staged search: a coarse grid, then the size of the embeddings, then steps from the best.
Its work is bounded by users and not by time: the same file and seed give the same choice.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from rangefinder.candidates import SEED_COUNT_MAX, similar_items
from rangefinder.item_tables import Places
from training import item_to_item
from training.best import best_items
from training.factors import FactorSettings, learn_factors
from training.held_out import LIST_LENGTH, HeldOutUsers
from training.interactions import Interactions
from training.item_to_item import Way
from training.neighbours import Neighbours
from training.split import Split

STEP_COUNT = 13  # Eleven trials of embeddings, two steps for item-to-item.

_INTERACTIONS_MAX = 2_000_000  # Of a search: more would not change the choice, but its time.
_USERS_MAX = 2_000  # Judged in a trial: the error of a mean NDCG is about 0.003 then.
_ITERATIONS = 8  # Of a trial: what is best then is best in the end, too.

_GRID = (
    FactorSettings(factors=64, regularization=10.0, alpha=4.0),
    FactorSettings(factors=64, regularization=60.0, alpha=4.0),
    FactorSettings(factors=64, regularization=1.0, alpha=10.0),
    FactorSettings(factors=64, regularization=1.0, alpha=40.0, discount=0.5),
)
_UNTRIED = FactorSettings(factors=64, regularization=1.0, alpha=10.0)
_SIZES = (32, 128)
_STEP = 2.0  # Of a step in regularization or alpha.
_DISCOUNTS = (0.0, 0.5)

Advance = Callable[[int], None]  # Told how many trials were done.


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen."""

    settings: FactorSettings
    item_to_item: Way

    @property
    def in_words(self) -> str:
        return f"{self.settings.in_words}; item-to-item by {self.item_to_item.in_words}"


@dataclass(frozen=True, slots=True)
class _Trials:
    """What trials learn from and are judged by."""

    part: Interactions
    held_out: HeldOutUsers
    seed: int
    threads: int

    def ndcg_of_factors(self, settings: FactorSettings) -> float:
        short = replace(settings, iterations=_ITERATIONS)
        factors = learn_factors(self.part, short, self.seed, self.threads)
        users, histories = self.held_out.users, self.held_out.histories
        best = best_items(factors.users, factors.items, histories, users, LIST_LENGTH)
        return self.held_out.ndcg(places for places, _ in best)

    def ndcg_of_neighbours(self, neighbours: Neighbours) -> float:
        return self.held_out.ndcg(self._similar(neighbours))

    def _similar(self, neighbours: Neighbours) -> Iterator[Places]:
        for user in self.held_out.users.tolist():
            history = self.held_out.histories.of(user).astype(np.int64)
            seeds = history[:SEED_COUNT_MAX]
            yield similar_items(neighbours.places, neighbours.scores, seeds, history, LIST_LENGTH)[0]


def choose(split: Split, seed: int, threads: int, advance: Advance) -> Choice:
    """Search; without held-out interactions, what suits most sets."""
    if not len(split.held_out):
        return Choice(_within(_UNTRIED, split.part), item_to_item.UNTRIED)
    split = _sample(split, seed)
    trials = _Trials(split.part, HeldOutUsers.of(split, seed, _USERS_MAX), seed, threads)
    settings = _best_settings(trials, advance)
    ways = item_to_item.learn_all(split.part)
    advance(1)
    reached = [trials.ndcg_of_neighbours(neighbours) for _, neighbours in ways]
    advance(1)
    return Choice(settings, ways[int(np.argmax(reached))][0])


def _best_settings(trials: _Trials, advance: Advance) -> FactorSettings:
    seen: dict[FactorSettings, float] = {}

    def try_all(candidates: Iterable[FactorSettings]) -> FactorSettings:
        for settings in (_within(each, trials.part) for each in candidates):
            if settings not in seen:
                seen[settings] = trials.ndcg_of_factors(settings)
            advance(1)
        return max(seen, key=lambda settings: seen[settings])

    best = try_all(_GRID)
    best = try_all(replace(best, factors=factors) for factors in _SIZES)
    return try_all(_steps_from(best))


def _steps_from(best: FactorSettings) -> Iterator[FactorSettings]:
    """One hyper-parameter changed at a time."""
    for factor in (_STEP, 1 / _STEP):
        yield replace(best, regularization=best.regularization * factor)
        yield replace(best, alpha=best.alpha * factor)
    yield from (replace(best, discount=each) for each in _DISCOUNTS if each != best.discount)


def _within(settings: FactorSettings, part: Interactions) -> FactorSettings:
    """No more factors than there are users or items: they could say nothing more."""
    return replace(settings, factors=min(settings.factors, part.user_count, part.item_count))


def _sample(split: Split, seed: int) -> Split:
    """The interactions of as many users, drawn at random, as a search can take."""
    counts = np.bincount(split.part.users, minlength=split.part.user_count)
    drawn = np.random.default_rng(seed).permutation(len(counts))
    is_chosen = np.zeros(len(counts), np.bool_)
    is_chosen[drawn[np.cumsum(counts[drawn]) <= _INTERACTIONS_MAX]] = True
    if is_chosen.all() or not is_chosen[split.held_out.users].any():
        return split
    return Split(
        *(each.part(np.flatnonzero(is_chosen[each.users])) for each in (split.part, split.held_out))
    )
