"""Which replica is asked."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from rangefinder.cluster_map import Replica, Shard
from router.choice import choose

NODES = [f"node-{number}" for number in range(6)]

placements = st.lists(st.lists(st.sampled_from(NODES), unique=True, max_size=4), max_size=8)
loads = st.dictionaries(st.sampled_from(NODES), st.integers(0, 5))
numbers = st.floats(0, 1, exclude_max=True)


def shards_on(placement: Sequence[Sequence[str]]) -> list[Shard]:
    return [
        Shard(
            name=f"s-{place}",
            key_start=place,
            key_end=place + 1,
            replicas=tuple(Replica(node=node) for node in nodes),
        )
        for place, nodes in enumerate(placement)
    ]


@given(placements, loads, st.data())
def test_each_shard_is_asked_of_one_usable_holder(
    placement: list[list[str]], in_flight: dict[str, int], data: st.DataObject
) -> None:
    """A shard goes to one usable node that holds it; without one it is unavailable."""
    random_numbers = [data.draw(numbers) for _ in placement]
    choice = choose(shards_on(placement), in_flight, random_numbers)
    asked = sorted(
        [(name, node) for node, names in choice.shards_of_node.items() for name in names]
        + [(name, "") for name in choice.unavailable]
    )
    assert [f"s-{place}" for place in range(len(placement))] == [name for name, _ in asked]
    for (_, node), holders in zip(asked, placement, strict=True):
        usable = {holder for holder in holders if holder in in_flight}
        assert (node in usable) if usable else not node


@given(st.permutations(NODES), st.lists(st.integers(0, 9), min_size=6, max_size=6), numbers)
def test_the_busiest_of_all_is_never_taken(nodes: list[str], counts: list[int], number: float) -> None:
    """Of two candidates the less busy is taken, so never the one that is busier than all others."""
    busiest = nodes[counts.index(max(counts))]
    in_flight = dict(zip(nodes, counts, strict=True))
    in_flight[busiest] += 1
    (taken,) = choose(shards_on([nodes]), in_flight, [number]).shards_of_node
    assert busiest != taken


@given(numbers)
def test_of_two_replicas_the_less_busy_is_taken(number: float) -> None:
    """With two replicas both are compared, whatever the random number."""
    shards = shards_on([["node-0", "node-1"]])
    assert {"node-1": ["s-0"]} == choose(shards, {"node-0": 3, "node-1": 2}, [number]).shards_of_node
    assert {"node-0": ["s-0"]} == choose(shards, {"node-0": 1, "node-1": 2}, [number]).shards_of_node


def test_equally_busy_replicas_share_the_work() -> None:
    """Random numbers that are spread evenly spread the shards evenly."""
    shards = shards_on([NODES[:4]] * 400)
    spread = [place / 400 for place in range(400)]
    choice = choose(shards, dict.fromkeys(NODES, 7), spread)
    assert [100] * 4 == [len(choice.shards_of_node[node]) for node in NODES[:4]]
