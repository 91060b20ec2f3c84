"""Which replica is asked."""

from collections import Counter
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


@given(st.integers(1, 4), st.integers(1, 20), st.data())
def test_a_batch_is_spread_over_equal_replicas(
    holder_count: int, shard_count: int, data: st.DataObject
) -> None:
    """Of shards that the same nodes hold none is given more than its pair of the random draw allows."""
    shards = shards_on([NODES[:holder_count]] * shard_count)
    random_numbers = [data.draw(numbers) for _ in shards]
    choice = choose(shards, dict.fromkeys(NODES, 0.007), random_numbers)
    counts = [len(choice.shards_of_node.get(node, ())) for node in NODES[:holder_count]]
    if holder_count <= 2:  # Both are compared for every shard.
        assert max(counts) - min(counts) <= 1
    assert max(counts) <= -(-shard_count // min(holder_count, 2))


def test_equally_busy_replicas_share_the_work() -> None:
    """Over batches, random numbers that are spread evenly spread the shards evenly."""
    shards = shards_on([NODES[:4]])
    asked = [choose(shards, dict.fromkeys(NODES, 7), [place / 400]) for place in range(400)]
    taken = Counter(node for choice in asked for node in choice.shards_of_node)
    assert dict.fromkeys(NODES[:4], 100) == taken


@given(numbers, st.floats(0.1, 0.9))
def test_a_node_that_is_eased_in_is_taken_so_often(number: float, share: float) -> None:
    """However cheap it looks, a new node is taken for its share of the random numbers alone."""
    shards = shards_on([["node-0", "node-1"]])
    costs = {"node-0": 0.0001, "node-1": 0.1}
    (taken,) = choose(shards, costs, [number], shares={"node-0": share}).shards_of_node
    assert ("node-0" if (number * 2) % 1 < share else "node-1") == taken


@given(numbers, st.floats(0.1, 0.9))
def test_where_all_are_new_the_cheaper_is_taken(number: float, share: float) -> None:
    """Nodes that are eased in side by side are as good as any: a router that starts knows no others."""
    shards = shards_on([["node-0", "node-1"], ["node-1"]])
    shares = {"node-0": share, "node-1": share}
    choice = choose(shards, {"node-0": 2.0, "node-1": 0.5}, [number, number], shares=shares)
    assert {"node-1": ["s-0", "s-1"]} == choice.shards_of_node


@given(placements, loads, loads, st.data())
def test_ejected_nodes_are_asked_where_no_other_is_left(
    placement: list[list[str]], costs: dict[str, int], ejected: dict[str, int], data: st.DataObject
) -> None:
    """A shard without a usable replica goes to an ejected one that answers; others never do."""
    ejected = {node: cost for node, cost in ejected.items() if node not in costs}
    random_numbers = [data.draw(numbers) for _ in placement]
    choice = choose(shards_on(placement), costs, random_numbers, ejected=ejected)
    node_of = {name: node for node, names in choice.shards_of_node.items() for name in names}
    for place, holders in enumerate(placement):
        wanted = set(holders) & costs.keys() or set(holders) & ejected.keys()
        node = node_of.get(f"s-{place}")
        assert (node in wanted) if wanted else (node is None and f"s-{place}" in choice.unavailable)
