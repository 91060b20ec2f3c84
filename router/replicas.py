"""Which node is asked for which shard, by what this router worker knows of the nodes now."""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence

from rangefinder.cluster_map import ClusterMap, Shard
from router.choice import Choice, choose
from router.hedging import hedge_delay_s, others_p95_s, without
from router.node_link import NodeLink


class Replicas:
    """The replicas of a map and the links to their nodes."""

    def __init__(self, cluster_map: ClusterMap, links: Mapping[str, NodeLink]) -> None:
        self._shards, self._links = cluster_map.serving_shards, links
        self._shard_of = {shard.name: shard for shard in self._shards}
        self.are_single = all(len(shard.replicas) == 1 for shard in self._shards)
        self._only: dict[str, list[str]] = {}
        for shard in self._shards:
            for replica in shard.replicas:
                self._only.setdefault(replica.node, []).append(shard.name)
        self._random = random.Random()

    def choose_all(self, now_s: float) -> Choice:
        """Nodes for every shard; where each has one replica and all of them are there, no choice."""
        if self.are_single and all(self._links[node].is_usable for node in self._only):
            return Choice(self._only, [])
        return self.choose(self._shards, now_s)

    def choose_again(self, names: Iterable[str], tried: Sequence[str], now_s: float) -> Choice:
        """Other nodes for some shards than those that were tried for any of them."""
        return self.choose([self._shard_of[name] for name in names], now_s, tried)

    def choose(self, shards: Sequence[Shard], now_s: float, tried: Sequence[str] = ()) -> Choice:
        """Nodes for some shards, none of those that were tried."""
        costs: dict[str, float] = {}
        shares: dict[str, float] = {}
        ejected: dict[str, float] = {}
        for name, link in self._links.items():
            if not link.is_open:
                continue
            cost = link.pace.cost(now_s, link.in_flight)
            if link.health.is_ejected:
                if not link.health.is_silent:
                    ejected[name] = cost
                continue
            costs[name] = cost
            if (share := link.health.share(now_s)) < 1.0:
                shares[name] = share
        if tried:
            costs, ejected = without(costs, tried), without(ejected, tried)
        numbers = [self._random.random() for _ in shards]
        return choose(shards, costs, numbers, shares=shares, ejected=ejected)

    def are_there_others(self, names: Iterable[str], tried: Collection[str]) -> bool:
        """Whether nodes hold any of the shards, be they usable now or not, that were not tried."""
        return any(
            replica.node not in tried for name in names for replica in self._shard_of[name].replicas
        )

    def p95_s(self, now_s: float) -> dict[str, float]:
        """The 95th percentile of every usable node's answers."""
        return {name: link.pace.p95_s(now_s) for name, link in self._links.items() if link.is_usable}

    def hedge_delay_s(
        self, node: str, names: Iterable[str], left_s: float, p95_s: Mapping[str, float]
    ) -> float:
        """How long to wait for a node before others are asked for its shards, too."""
        others_s = others_p95_s(node, [self._shard_of[name] for name in names], p95_s)
        return hedge_delay_s(p95_s.get(node, 0.0), others_s, left_s)
