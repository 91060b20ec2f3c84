"""Ids in public requests: of the kind of the cluster, not too many, each of them an id."""

import numpy as np
import pytest
import xxhash

from rangefinder.cluster_map import ClusterMap
from rangefinder.errors import InvalidRequest
from rangefinder.keys import IdKind
from rangefinder.v1.types_pb2 import ItemIds
from router.requests import keys_of_ids
from tests.kit.oracle import splitmix64
from tests.unit.asked import MAP, TEXT_MAP, batch, block, field_refused, single


@pytest.mark.parametrize("count", [1, 3])
def test_exclusions_stand_beside_the_queries(count: int) -> None:
    """A batch has no list of exclusions, or one for each query."""
    excluded = [ItemIds(integers=[1])] * count
    assert "excluded_items" == field_refused(lambda: batch(excluded_items=excluded))


def test_exclusions_are_bounded() -> None:
    """10,000 ids for a query, and 100,000 for a batch, are taken; one more is refused."""
    most = ItemIds(integers=range(10_000))
    more = ItemIds(integers=range(10_001))
    assert 10_000 == len(single(excluded_items=most).block.excluded[0])
    assert "excluded_items" == field_refused(lambda: single(excluded_items=more))
    assert "excluded_items" == field_refused(lambda: batch(excluded_items=[ItemIds(), more]))
    eleven = [most] * 10 + [ItemIds()]
    assert 11 == len(batch(queries=block(11), excluded_items=eleven).block.excluded)
    eleven[10].integers.append(1)
    assert "excluded_items" == field_refused(lambda: batch(queries=block(11), excluded_items=eleven))


@pytest.mark.parametrize(
    ("cluster_map", "ids", "own"),
    [
        (MAP, ItemIds(texts=["sofa"]), "integers"),
        (MAP, ItemIds(integers=[1], texts=["sofa"]), "integers"),
        (TEXT_MAP, ItemIds(integers=[1]), "texts"),
        (TEXT_MAP, ItemIds(integers=[1], texts=["sofa"]), "texts"),
    ],
)
def test_ids_of_the_other_kind_are_refused(cluster_map: ClusterMap, ids: ItemIds, own: str) -> None:
    """A cluster has ids of one kind; the refusal says which."""
    expected = rf"^excluded_items: ids of this cluster are {own}"
    with pytest.raises(InvalidRequest, match=expected):
        single(cluster_map, excluded_items=ids)
    with pytest.raises(InvalidRequest, match=expected):
        batch(cluster_map, excluded_items=[ItemIds(), ids])


@pytest.mark.parametrize("text", ["", "x" * 257, "é" * 129])
def test_texts_that_are_no_ids_are_refused(text: str) -> None:
    """A text id has 1 to 256 bytes."""
    ids = ItemIds(texts=["sofa", text])
    assert "excluded_items" == field_refused(lambda: single(TEXT_MAP, excluded_items=ids))


def test_keys_of_ids_of_each_kind() -> None:
    """Ids become the keys of their kind, in their order."""
    integers = ItemIds(integers=[-(2**63), 0, 2**63 - 1])
    texts = ItemIds(texts=["sofa", "日本", "x" * 256])
    expected = {
        IdKind.INTEGER: [splitmix64(-(2**63)), 0, splitmix64(2**63 - 1)],
        IdKind.ORDERED: [0, 2**63, 2**64 - 1],
        IdKind.TEXT: [xxhash.xxh3_64_intdigest(text.encode()) for text in texts.texts],
    }
    for kind, keys in expected.items():
        ids = integers if kind.is_integer else texts
        assert keys == keys_of_ids(ids, kind, "items", 3).tolist()
        assert "items" == field_refused(lambda ids=ids, kind=kind: keys_of_ids(ids, kind, "items", 2))  # type: ignore[misc]
        assert np.uint64 == keys_of_ids(ItemIds(), kind, "items", 3).dtype
