"""When a node's part of a batch is asked of other replicas too, or instead. Pure.

Hedges hide the seconds until the choice has turned away from a node that became slow; see "The Tail at
Scale" (Dean and Barroso, 2013).
"""

from collections.abc import Iterable, Mapping, Sequence

from rangefinder.cluster_map import Shard
from rangefinder.errors import (
    Internal,
    MapChanged,
    RangefinderError,
    ReleaseNotServed,
    ReplicaUnavailable,
    UnknownShard,
)

HEDGE_S_MIN = 0.002  # Less is noise of the event loop.

# A third of the time left: of 200 ms, two thirds are enough for the hedge.
_LEFT_SHARE_MAX = 1 / 3

# A node is late by its own 95th percentile; but one that has been slow for long would never be late by
# its own, so twice that of the fastest other replica is late, too.
_OTHERS_FACTOR = 2.0

# An answer that is ready at the last moment is late: so much is kept for its way, of little time less.
_ANSWER_S, _ANSWER_SHARE_MAX = 0.005, 0.1

# With less than this of its time left a node is looked at no more: many that are late cost looks.
_NEAR_END_SHARE = 0.2

_TIMER_S = 0.001  # So much too early may a timer be.

RETRY_S_MIN = 0.002  # With less time left no node answers.

# What a node says that goes by another map than this router; another replica may go by the same.
_MISPLACED = (MapChanged, ReleaseNotServed, UnknownShard)


def hedge_delay_s(own_p95_s: float, others_p95_s: float, left_s: float) -> float:
    """How long to wait for a node. Percentiles are 0 where they are not known.

    others_p95_s: of the fastest of the nodes that could answer in its place.
    """
    known = [each for each in (own_p95_s, _OTHERS_FACTOR * others_p95_s) if each > 0.0]
    return min(max(min(known, default=left_s), HEDGE_S_MIN), left_s * _LEFT_SHARE_MAX)


def node_time_s(left_s: float) -> float:
    """What a node is told that it has, of the time until its answer is needed here."""
    return left_s - min(_ANSWER_S, left_s * _ANSWER_SHARE_MAX)


def look_again_s(waited_s: float, allowed_s: float) -> float:
    """How much longer to wait where nobody could be asked, for want of budget or of a usable node.

    As long again, or to half-time; then twice until half of what is left.
    """
    to_half_s, left_s = allowed_s / 2 - waited_s, allowed_s - waited_s
    if to_half_s > _timer_s(allowed_s):
        return max(min(waited_s, to_half_s), _TIMER_S)
    is_near_end = left_s < allowed_s * _NEAR_END_SHARE
    return max(waited_s if is_near_end else left_s / 2, _TIMER_S)


def is_given_up(waited_s: float, allowed_s: float, *, is_silent: bool) -> bool:
    """Whether a node is taken for failed at half-time, so that asking others is a retry, not a hedge.

    is_silent: nothing was heard of it since it was asked. One that is merely late is hedged.
    """
    return is_silent and allowed_s / 2 - waited_s <= _timer_s(allowed_s)


def _timer_s(allowed_s: float) -> float:
    """How much too early a look may be; of little time, little."""
    return min(_TIMER_S, allowed_s / 20)


def others_p95_s(node: str, shards: Iterable[Shard], p95_s: Mapping[str, float]) -> float:
    """The lowest 95th percentile of the usable nodes that hold one of the shards; 0: not known."""
    known = [
        p95_s[replica.node]
        for shard in shards
        for replica in shard.replicas
        if replica.node != node and p95_s.get(replica.node, 0.0) > 0.0
    ]
    return min(known, default=0.0)


def without(costs: Mapping[str, float], tried: Iterable[str]) -> dict[str, float]:
    """Costs for the choice of a hedge or a retry: nobody is asked twice."""
    left = dict(costs)
    for node in tried:
        left.pop(node, None)
    return left


def may_retry(error: RangefinderError, left_s: float) -> bool:
    """Whether another replica is worth asking: only where this one could not take the work at all."""
    return _was_not_taken(error) and left_s >= RETRY_S_MIN


def is_of_the_node(error: RangefinderError) -> bool:
    """Whether a failure speaks against the node, not against what was asked of it."""
    return _was_not_taken(error) or isinstance(error, Internal)


def _was_not_taken(error: RangefinderError) -> bool:
    return error.status == ReplicaUnavailable.status or isinstance(error, _MISPLACED)


def queries_of(shards: Sequence[str], part: Sequence[str], query_count: int) -> int:
    """What asking others for some shards of a node's part costs the budget, at least 1."""
    return max(1, round(query_count * len(shards) / len(part)))
