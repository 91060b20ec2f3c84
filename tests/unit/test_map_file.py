"""The map as a file, and the map of a release."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.cluster_map import ClusterMap, Node
from rangefinder.errors import InputRefused
from rangefinder.keys import IdKind
from rangefinder.map_file import map_of_release, read_map, write_map
from rangefinder.metric import Metric
from rangefinder.release import IndexParameters, ReleaseManifest, ReleaseShard


def manifest_of(cuts: set[int]) -> ReleaseManifest:
    bounds = [0, *sorted(cuts), 2**64]
    shards = tuple(
        ReleaseShard(name=f"s-{place}", key_start=start, key_end=end, item_count=place, segments=("a",))
        for place, (start, end) in enumerate(pairwise(bounds))
    )
    return ReleaseManifest(
        format=1,
        name="r-1",
        dimension=8,
        metric=Metric.L2,
        id_kind=IdKind.TEXT,
        item_count=sum(shard.item_count for shard in shards),
        created_at_s=12.5,
        recall_target=0.98,
        index=IndexParameters(),
        shards=shards,
        files={},
    )


def nodes_of(count: int) -> tuple[Node, ...]:
    return tuple(Node(name=f"node-{place}", address=f"localhost:{place + 1}") for place in range(count))


def placed(cuts: set[int], node_count: int, replica_count: int) -> ClusterMap:
    return map_of_release(manifest_of(cuts), nodes_of(node_count), replica_count, cluster="c", epoch=4)


cut_sets = st.sets(st.integers(1, 2**64 - 1), max_size=9)


@given(cut_sets, st.integers(1, 6), st.data())
def test_replicas_of_a_shard_are_on_different_nodes(
    cuts: set[int], node_count: int, draw: st.DataObject
) -> None:
    """Each shard of the release has its replicas on as many nodes, evenly, the same way each time."""
    replica_count = draw.draw(st.integers(1, node_count))
    cluster_map = placed(cuts, node_count, replica_count)
    holders = [[replica.node for replica in shard.replicas] for shard in cluster_map.shards]
    assert [replica_count] * len(cluster_map.shards) == [len(set(nodes)) for nodes in holders]
    loads = [sum(name in nodes for nodes in holders) for name in (n.name for n in cluster_map.nodes)]
    # In turn: a node's first copies differ by one at most, and so do its second ones, ...
    assert max(loads) - min(loads) <= replica_count
    assert cluster_map == placed(cuts, node_count, replica_count)


def test_the_map_says_what_the_release_is() -> None:
    """Ranges, item counts, kind, dimension and metric of the release stand in its map."""
    cluster_map = placed({7}, 2, 1)
    shards = [(each.name, each.key_start, each.key_end, each.item_count) for each in cluster_map.shards]
    assert [("s-0", 0, 7, 0), ("s-1", 7, 2**64, 1)] == shards
    assert {("r-1",)} == {r.releases for shard in cluster_map.shards for r in shard.replicas}
    release = cluster_map.release("")
    assert (8, Metric.L2, 12.5) == (release.dimension, release.metric, release.created_at_s)
    assert (4, "c", IdKind.TEXT) == (cluster_map.epoch, cluster_map.cluster, cluster_map.id_kind)


def test_more_replicas_than_nodes_are_refused() -> None:
    """Two copies on one node would be lost together: refused."""
    with pytest.raises(InputRefused, match="3 replicas need as many nodes: 2 is too few"):
        placed(set(), 2, 3)


@given(cuts=cut_sets, node_count=st.integers(1, 3))
def test_a_map_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, cuts: set[int], node_count: int
) -> None:
    """Writing and reading changes nothing, keys above 2^53 included, and leaves one file."""
    path = tmp_path_factory.mktemp("map") / "map.json"
    cluster_map = placed(cuts, node_count, 1)
    write_map(path, cluster_map)
    assert cluster_map == read_map(path)
    assert [path] == list(path.parent.iterdir())


def test_keys_are_written_as_hexadecimal_text(tmp_path: Path) -> None:
    """Keys are texts of 16 digits: readers of JSON elsewhere round large integers."""
    write_map(tmp_path / "map.json", placed({2**60 + 1}, 1, 1))
    shards = json.loads((tmp_path / "map.json").read_text())["shards"]
    written = [(each["key_start"], each["key_end"]) for each in shards]
    expected = [("0" * 16, "1000000000000001"), ("1000000000000001", "1" + "0" * 16)]
    assert expected == written


Content = dict[str, Any]

FAULTS: list[tuple[str, Callable[[Content], object], str]] = [
    ("unknown key", lambda m: m.update(epok=1), "epok: unknown key"),
    ("unknown inner key", lambda m: m["shards"][0].update(rang=1), "shards.0.rang: unknown key"),
    ("unknown node", lambda m: m["nodes"].pop(), "shard s-1: unknown node node-1"),
    ("node twice", lambda m: m["nodes"].append(m["nodes"][0]), "node node-0 stands twice"),
    ("shard twice", lambda m: m["shards"][1].update(name="s-0"), "shard s-0 stands twice"),
    (
        "unknown release",
        lambda m: m.update(active_release="r-9"),
        "active release r-9 is not in the map",
    ),
    ("gap", lambda m: m["shards"].pop(), "keys must be covered exactly once"),
    ("missing key", lambda m: m.pop("epoch"), "epoch: Field required"),
    ("epoch 0", lambda m: m.update(epoch=0), "epoch: Input should be greater than or equal to 1"),
    ("wrong name", lambda m: m["nodes"][0].update(name="a/b"), "nodes.0.name: String should match"),
    ("no port", lambda m: m["nodes"][0].update(address="host"), "nodes.0.address: String should match"),
    ("no key", lambda m: m["shards"][0].update(key_start="xyz"), "shards.0.key_start: "),
    ("key below 0", lambda m: m["shards"][0].update(key_start="-1"), "shards.0.key_start: "),
    ("key past the end", lambda m: m["shards"][1].update(key_end="2" + "0" * 16), "shards.1.key_end: "),
    ("wrong state", lambda m: m["shards"][0].update(state="ASLEEP"), "shards.0.state: "),
    ("wrong kind", lambda m: m.update(id_kind="uuid"), "id_kind: "),
]


@pytest.mark.parametrize(
    ("fault", "why"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS]
)
def test_a_file_that_is_no_map_is_refused(
    tmp_path: Path, fault: Callable[[Content], object], why: str
) -> None:
    """A file that is no map is refused in one line that names the file and what is wrong."""
    path = tmp_path / "map.json"
    write_map(path, placed({2**63}, 2, 1))
    content = json.loads(path.read_text())
    fault(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputRefused, match=f"^{re.escape(f'{path}: ')}.*{re.escape(why)}") as refused:
        read_map(path)
    assert 1 == len(str(refused.value).splitlines())


def test_a_missing_map_is_refused(tmp_path: Path) -> None:
    """A file that is not there is refused by name."""
    with pytest.raises(InputRefused, match=r"map\.json: no such file or directory"):
        read_map(tmp_path / "map.json")
