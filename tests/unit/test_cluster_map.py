"""The cluster map: every key has one owner, and what is no map is refused."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefinder.cluster_map import (
    ClusterMap,
    InvalidClusterMap,
    KeyRange,
    Node,
    Release,
    ReleaseState,
    Replica,
    Shard,
    ShardState,
)
from rangefinder.errors import ReleaseNotServed, UnknownRelease
from rangefinder.keys import IdKind
from rangefinder.metric import Metric

KEY_MAX = 2**64 - 1
NODES = (Node(name="node-0", address="127.0.0.1:1"), Node(name="node-1", address="127.0.0.1:2"))
RELEASE = Release(name="r-1", dimension=4, metric=Metric.COSINE)


def shard(number: int, key_start: int, key_end: int, **others: Any) -> Shard:
    replicas = (Replica(node=f"node-{number % 2}", releases=("r-1",)),)
    name = f"s-{number}"
    return replace(Shard(name=name, key_start=key_start, key_end=key_end, replicas=replicas), **others)


def map_of(*shards: Shard, **others: Any) -> ClusterMap:
    settings: dict[str, Any] = {
        "epoch": 3,
        "cluster": "test",
        "id_kind": IdKind.INTEGER,
        "active_release": "r-1",
        "nodes": NODES,
        "releases": (RELEASE,),
    }
    return ClusterMap(**{**settings, "shards": shards, **others})


def partition(cuts: set[int]) -> ClusterMap:
    """The map whose shards end at these keys."""
    bounds = [0, *sorted(cuts), 2**64]
    pairs = pairwise(bounds)
    return map_of(*(shard(number, *pair) for number, pair in enumerate(pairs)))


cut_sets = st.sets(
    st.integers(1, KEY_MAX) | st.sampled_from([1, 2**63 - 1, 2**63, 2**63 + 1, KEY_MAX]), max_size=12
)
some_keys = st.integers(0, KEY_MAX)


@given(cut_sets, st.lists(some_keys, max_size=20))
@example({KEY_MAX, 1}, [0, 1, KEY_MAX])
def test_every_key_has_one_owner(cuts: set[int], keys: list[int]) -> None:
    """Any partition is a map, and shard_places names the one shard whose range holds the key."""
    cluster_map = partition(cuts)
    edges = [key for cut in cuts for key in (cut - 1, cut)]
    asked = [0, KEY_MAX, *edges, *keys]
    owners = [
        [
            place
            for place, each in enumerate(cluster_map.serving_shards)
            if key in range(each.key_start, each.key_end)
        ]
        for key in asked
    ]
    places = cluster_map.shard_places(np.array(asked, np.uint64)).tolist()
    assert owners == [[place] for place in places]


@given(cut_sets, some_keys, some_keys)
@example({10, 20}, 10, 19)
@example({10, 20}, 9, 20)
@example({10, 20}, 0, KEY_MAX)
def test_a_range_is_covered_by_the_shards_it_overlaps(cuts: set[int], one: int, other: int) -> None:
    """shards_from returns exactly the shards that share a key with the range, in key order."""
    cluster_map = partition(cuts)
    key_start, key_end = min(one, other), max(one, other) + 1
    overlapping = [
        each.name
        for each in cluster_map.shards
        if max(each.key_start, key_start) < min(each.key_end, key_end)
    ]
    assert overlapping == [each.name for each in cluster_map.shards_from(key_start, key_end)]


@given(cut_sets.filter(bool), st.data())
def test_what_is_no_partition_is_refused(cuts: set[int], draw: st.DataObject) -> None:
    """A gap, an overlap, a missing or a repeated shard, or another order is no map."""
    shards = list(partition(cuts).shards)
    place = draw.draw(st.integers(0, len(shards) - 1))
    chosen = shards[place]
    fault = draw.draw(st.sampled_from(["gap", "overlap", "missing", "twice", "order"]))
    if fault == "gap":
        shards[place] = replace(chosen, key_end=chosen.key_end - 1)
    elif fault == "overlap":
        shards[place] = replace(chosen, key_start=max(chosen.key_start - 1, 0), key_end=2**64)
        shards.append(shard(99, KEY_MAX, 2**64))
    elif fault == "missing":
        del shards[place]
    elif fault == "twice":
        shards.insert(place, replace(chosen, name="s-99"))
    else:
        shards.reverse()
    with pytest.raises(InvalidClusterMap, match="epoch 3: keys must be covered exactly once"):
        map_of(*shards)


@pytest.mark.parametrize(
    "shards",
    [
        [],
        [shard(0, 1, 2**64)],
        [shard(0, 0, KEY_MAX)],
        [shard(0, 0, 0), shard(1, 0, 2**64)],
        [shard(0, 0, 5), shard(1, 6, 2**64)],
        [shard(0, 0, 6), shard(1, 5, 2**64)],
        [shard(0, 0, 5), shard(1, 5, 5), shard(2, 5, 2**64)],
        [shard(0, 0, 2**64, state=ShardState.BUILDING)],
    ],
    ids=["none", "start", "end", "empty first", "gap", "overlap", "empty", "not serving"],
)
def test_keys_without_one_owner_are_refused(shards: list[Shard]) -> None:
    """Keys that no serving shard holds, or two do, are refused."""
    with pytest.raises(InvalidClusterMap, match="covered exactly once"):
        map_of(*shards)


def test_shards_that_do_not_serve_own_nothing() -> None:
    """A building or retiring shard may overlap serving ones, and is found for no key."""
    retiring = shard(2, 0, 2**64, state=ShardState.RETIRING)
    building = shard(3, 5, 9, state=ShardState.BUILDING)
    cluster_map = map_of(retiring, shard(0, 0, 7), building, shard(1, 7, 2**64))
    assert ["s-0", "s-1"] == [each.name for each in cluster_map.serving_shards]
    assert [0, 0, 1] == cluster_map.shard_places(np.array([0, 6, 7], np.uint64)).tolist()
    assert ["s-0", "s-1"] == [each.name for each in cluster_map.shards_from(0, 2**64)]


WHOLE = shard(0, 0, 2**64)


@pytest.mark.parametrize(
    ("shards", "others", "message"),
    [
        ([WHOLE, shard(0, 0, 1, state=ShardState.BUILDING)], {}, "shard s-0 stands twice"),
        ([WHOLE], {"nodes": (*NODES, NODES[0])}, "node node-0 stands twice"),
        ([WHOLE], {"releases": (RELEASE, RELEASE)}, "release r-1 stands twice"),
        ([WHOLE], {"nodes": NODES[1:]}, "shard s-0: unknown node node-0"),
        ([WHOLE], {"active_release": "r-2"}, "active release r-2 is not in the map"),
        (
            [replace(WHOLE, replicas=WHOLE.replicas * 2)],
            {},
            "replica of s-0 on node-0 stands twice",
        ),
    ],
)
def test_names_are_known_and_unique(shards: list[Shard], others: dict[str, Any], message: str) -> None:
    """A name that stands twice, or for nothing, is refused by name."""
    with pytest.raises(InvalidClusterMap, match=message):
        map_of(*shards, **others)


def test_a_release_is_found_by_name_or_as_the_active_one() -> None:
    """An empty name is the active release; an unknown or unloaded one is refused."""
    loading = replace(RELEASE, name="r-2", state=ReleaseState.LOADING)
    cluster_map = map_of(WHOLE, releases=(loading, RELEASE))
    assert RELEASE == cluster_map.release("") == cluster_map.release("r-1")
    with pytest.raises(UnknownRelease, match="no release 'r-3'"):
        cluster_map.release("r-3")
    with pytest.raises(ReleaseNotServed, match="release r-2 is LOADING"):
        cluster_map.release("r-2")


def test_a_key_range_is_half_open() -> None:
    """A range holds its start and not its end."""
    keys = KeyRange(key_start=5, key_end=7)
    assert [False, True, True, False] == [keys.holds(key) for key in (4, 5, 6, 7)]
