"""Which replica of each shard is asked. Pure: costs and randomness are arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rangefinder.cluster_map import Shard

_NONE: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True)
class Choice:
    """The shards that each node is asked for, and those that no usable node holds."""

    shards_of_node: dict[str, list[str]]
    unavailable: list[str]


def choose(
    shards: Sequence[Shard],
    costs: Mapping[str, float],
    random_numbers: Sequence[float],
    *,
    shares: Mapping[str, float] = _NONE,
    ejected: Mapping[str, float] = _NONE,
) -> Choice:
    """Take for each shard the cheaper of two random usable replicas.

    costs: of one message to each usable node. What a batch gives to a node makes that node dearer for
    the rest of it, so shards that several nodes hold are spread over them and searched side by side.
    shares: in (0, 1), of the nodes that are being eased in: so often one is looked at.
    ejected: costs of nodes that are left out, but do answer. A shard asks them where all of its usable
    replicas are gone: a node that fails at times is better than none.
    random_numbers: in [0, 1), one for each shard.
    """
    chosen: dict[str, list[str]] = {}
    unavailable: list[str] = []
    for shard, number in zip(shards, random_numbers, strict=True):
        known = costs
        usable = [replica.node for replica in shard.replicas if replica.node in costs]
        if not usable and ejected:
            known = ejected
            usable = [replica.node for replica in shard.replicas if replica.node in ejected]
        if not usable:
            unavailable.append(shard.name)
            continue
        place = int(number * len(usable))
        node, other = usable[place], usable[place - 1]
        if node != other and _is_better(
            other, node, number * len(usable) - place, known, shares, chosen
        ):
            node = other
        chosen.setdefault(node, []).append(shard.name)
    return Choice(chosen, unavailable)


def _is_better(
    other: str,
    node: str,
    number: float,
    costs: Mapping[str, float],
    shares: Mapping[str, float],
    chosen: Mapping[str, Sequence[str]],
) -> bool:
    """Whether `other` is to be taken; number: what is left of the random number, in [0, 1)."""
    if shares:
        is_looked_at = number < shares.get(other, 1.0)
        if is_looked_at != (number < shares.get(node, 1.0)):
            return is_looked_at
    return costs[other] * (1 + len(chosen.get(other, ()))) < costs[node] * (
        1 + len(chosen.get(node, ()))
    )
