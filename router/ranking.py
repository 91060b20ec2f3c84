"""What a ranker is asked, and what its answer is worth. Pure: time and randomness are arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rangefinder.candidates import Places, Scores
from rangefinder.errors import InvalidRanking
from rangefinder.keys import IntegerIds

# A call and what surrounds it take so long however few candidates there are.
CALL_S = 0.002

# Of one candidate until there is a measurement: the budget is 3 ms for 500.
_SECONDS_PER_CANDIDATE = 6e-6
_SMOOTHING = 0.1
_LEARNT_FROM_MIN = 200
_QUICKEST_S = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """What a ranker scored, best first: columns of one length."""

    places: Places  # In the list of candidates.
    scores: Scores
    scored_count: int  # In all; not all of them were asked back.
    model: str
    model_version: str
    head_scores: Mapping[str, Scores] = field(default_factory=dict)
    features: Mapping[str, Scores] = field(default_factory=dict)


@dataclass(slots=True)
class RankingPace:
    """How long ranking takes, as lately measured."""

    seconds_per_candidate: float = _SECONDS_PER_CANDIDATE

    def count_in(self, left_s: float) -> int:
        """How many candidates can be ranked in the time left; 0: not even a call fits."""
        return max(0, int((left_s - CALL_S) / self.seconds_per_candidate))

    def record(self, count: int, took_s: float) -> None:
        """A call of so many candidates was answered."""
        # What holds up a short list has little to do with its candidates.
        each_s = max(took_s - CALL_S, _QUICKEST_S) / max(count, _LEARNT_FROM_MIN)
        self.seconds_per_candidate += _SMOOTHING * (each_s - self.seconds_per_candidate)


def less_busy(in_flight: Mapping[str, int], number: float) -> list[str]:
    """The better of two random rankers, then the other one; `number` is in [0, 1)."""
    names = sorted(in_flight)
    if not names:
        return []
    first = int(number * len(names))
    pair = dict.fromkeys((names[first], names[(first + 1) % len(names)]))
    return sorted(pair, key=lambda name: in_flight[name])


def places_of(ids: IntegerIds, candidates: IntegerIds) -> Places:
    """The place of each id among the candidates, -1 where it is none of them."""
    order = np.argsort(candidates, kind="stable")
    places = order.take(candidates.searchsorted(ids, sorter=order), mode="clip")
    return np.where(candidates[places] == ids, places, -1)


def require_ranking(
    places: Places, scores: Scores, scored_count: int, asked_count: int, wanted_count: int
) -> None:
    """Raise InvalidRanking for what cannot be the answer: asked_count candidates, wanted_count back."""
    expected = min(asked_count, wanted_count)
    if len(places) != expected or len(scores) != expected:
        raise InvalidRanking(f"{len(places)} items and {len(scores)} scores, not {expected} of each")
    if not 0 <= scored_count <= asked_count:
        raise InvalidRanking(f"{scored_count} of {asked_count} candidates are said to be scored")
    distinct = set(places.tolist())  # Of a few items: quicker than sorting them.
    if len(distinct) != len(places) or -1 in distinct:
        raise InvalidRanking("an item that was no candidate, or one that comes twice")
    scored = scores[:scored_count]
    if not np.isfinite(scored).all():
        raise InvalidRanking("a score that is no finite number, of an item that is said to be scored")
    if (scored[1:] > scored[:-1]).any():
        raise InvalidRanking("scores that are not in descending order")


def in_order(ranked: Places, candidate_count: int, item_count: int) -> npt.NDArray[np.int64]:
    """Places of the items to return: ranked ones first, then the others as they were retrieved."""
    if len(ranked) >= item_count:
        return ranked[:item_count]
    is_left = np.ones(candidate_count, np.bool_)
    is_left[ranked] = False
    return np.concatenate([ranked, np.flatnonzero(is_left)])[:item_count]
