"""Which processes of `rangefinder up` a rolling restart leaves alone."""

import pytest

from rangefinder.cli.rolling import why_needed
from rangefinder.cli.up_plan import Config
from rangefinder.cluster_map import Replica
from ranker_service.config import RankerConfig
from router.config import RouterConfig
from shard_server.config import NodeConfig
from tests.unit.test_cluster_map import map_of, shard

HALF = 2**63
BOTH = (Replica(node="node-0"), Replica(node="node-1"))
# s-0 is on both nodes, s-1 on node-1 alone.
MAP = map_of(shard(0, 0, HALF, replicas=BOTH), shard(1, HALF, 2**64))
ONE_RANKER = (RankerConfig(name="ranker-0"),)
TWO_RANKERS = (*ONE_RANKER, RankerConfig(name="ranker-1"))

CASES: list[tuple[Config, tuple[Config, ...], str]] = [
    (NodeConfig(name="node-0"), (), ""),
    (NodeConfig(name="node-1"), (), "nobody else has shard s-1: start with --replicas 2"),
    (TWO_RANKERS[0], TWO_RANKERS, ""),
    (ONE_RANKER[0], ONE_RANKER, "it is the only ranker: start with --rankers 2"),
    (RouterConfig(workers=2), (), ""),
    (RouterConfig(), (), "it has one worker: start with --router-workers 2"),
]


@pytest.mark.parametrize(("config", "others", "why"), CASES)
def test_what_nobody_can_stand_in_for_is_needed(
    config: Config, others: tuple[Config, ...], why: str
) -> None:
    """A node with the only copy of a shard, the only ranker, a router of one worker; each says what
    to start it with."""
    assert why == why_needed(config, others, MAP)
