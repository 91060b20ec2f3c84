"""What is held out of training, to judge by: each user's latest interactions, or random ones. Pure."""

from dataclasses import dataclass

import numpy as np

from training.interactions import Interactions

HELD_OUT_SHARE = 0.2  # A fifth: users of fewer than five interactions keep them all.


@dataclass(frozen=True, slots=True)
class Split:
    """Two parts without a pair in common; ids and codes are those of the whole."""

    part: Interactions
    held_out: Interactions


def split(interactions: Interactions, seed: int) -> Split:
    """Hold out a fifth of each user's pairs, rounded down: the latest where times are known."""
    random = np.random.default_rng(seed).random(len(interactions))
    times = random if interactions.times is None else interactions.times
    order = np.lexsort((random, times, interactions.users))  # Equal times are drawn from.
    counts = np.bincount(interactions.users, minlength=interactions.user_count)
    ends = np.cumsum(counts)[interactions.users]  # The pairs are sorted by user, in `order` as well.
    wanted = (counts * HELD_OUT_SHARE).astype(np.int64)[interactions.users]
    is_late = np.arange(len(interactions)) >= ends - wanted
    is_held_out = np.empty(len(interactions), np.bool_)
    is_held_out[order] = is_late
    return Split(
        part=interactions.part(np.flatnonzero(~is_held_out)),
        held_out=interactions.part(np.flatnonzero(is_held_out)),
    )
