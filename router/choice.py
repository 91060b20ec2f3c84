"""Which replica of each shard is asked. Pure: load and randomness are arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rangefinder.cluster_map import Shard


@dataclass(frozen=True, slots=True)
class Choice:
    """The shards that each node is asked for, and those that no usable node holds."""

    shards_of_node: dict[str, list[str]]
    unavailable: list[str]


def choose(
    shards: Sequence[Shard], in_flight: Mapping[str, int], random_numbers: Sequence[float]
) -> Choice:
    """Take for each shard the less busy of two random usable replicas.

    in_flight: searches under way on each usable node. random_numbers: in [0, 1), one for each shard.
    """
    chosen: dict[str, list[str]] = {}
    unavailable: list[str] = []
    for shard, number in zip(shards, random_numbers, strict=True):
        usable = [replica.node for replica in shard.replicas if replica.node in in_flight]
        if not usable:
            unavailable.append(shard.name)
            continue
        place = int(number * len(usable))
        node, other = usable[place], usable[place - 1]
        if in_flight[other] < in_flight[node]:
            node = other
        chosen.setdefault(node, []).append(shard.name)
    return Choice(chosen, unavailable)
