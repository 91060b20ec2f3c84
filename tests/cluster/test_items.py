"""Items read back: by id in the order asked for, and as a scan in the order of keys."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from rangefinder.v1.item_pb2 import GetItemsRequest, Item, ScanItemsRequest, ScanItemsResponse
from rangefinder.v1.types_pb2 import ItemIds
from tests.kit.calls import failure_of
from tests.kit.nasty_world import Catalogue
from tests.kit.served import DEADLINE_S, Served
from tests.kit.shelf import ITEM_COUNT, LONG_COUNT, Shelf

METRICS = ("ip", "cosine", "l2")
KEY_COUNT = 2**64


def ids_message(ids: Sequence[int | str]) -> ItemIds:
    if isinstance(ids[0], str):
        return ItemIds(texts=[str(each) for each in ids])
    return ItemIds(integers=[int(each) for each in ids])


def id_of(item: Item) -> int | str:
    kind = item.WhichOneof("id")
    assert kind is not None
    return item.text_id if kind == "text_id" else item.integer_id


def stored_rows(catalogue: Catalogue) -> np.ndarray:
    """What is kept of each embedding: all of it, or its direction."""
    if catalogue.metric != "cosine":
        return catalogue.rows
    lengths = np.sqrt(np.square(catalogue.rows.astype(np.float64)).sum(axis=1, keepdims=True))
    return (catalogue.rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
async def test_items_come_in_the_order_asked_for(nasty: dict[str, Served], metric: str) -> None:
    """Every item that exists, in the order asked for, as often as asked for; others are left out."""
    served = nasty[metric]
    known = [served.catalogue.ids[row] for row in np.random.default_rng(1).permutation(300)]
    strangers = ["no", "such", "item"] if metric == "cosine" else [17, -17, 123_456_789]
    asked = [strangers[0], *known, strangers[1], *known[:50], known[0], known[0], strangers[2]]
    expected = [*known, *known[:50], known[0], known[0]]
    answer = await served.items.GetItems(GetItemsRequest(items=ids_message(asked)), timeout=DEADLINE_S)
    assert expected == [id_of(item) for item in answer.items]
    assert not answer.unread_items.integers
    assert not answer.unread_items.texts
    certificate, total = answer.certificate, len(served.catalogue.ids)
    assert (total, total) == (certificate.item_count, certificate.item_count_searched)
    assert not certificate.missed_ranges
    assert not certificate.HasField("estimated_recall")
    assert (1, served.release.name) == (certificate.map_epoch, certificate.release)


@pytest.mark.parametrize("metric", METRICS)
async def test_embeddings_come_where_asked_for(nasty: dict[str, Served], metric: str) -> None:
    """They are the rows that were built, to the last bit; under cosine of length 1, or zero."""
    served = nasty[metric]
    ids = ids_message(served.catalogue.ids[:1_000])
    without = await served.items.GetItems(GetItemsRequest(items=ids), timeout=DEADLINE_S)
    assert not any(item.HasField("embedding") for item in without.items)
    request = GetItemsRequest(items=ids, with_embeddings=True)
    answer = await served.items.GetItems(request, timeout=DEADLINE_S)
    rows = np.array([item.embedding.values for item in answer.items], np.float32)
    expected = stored_rows(served.catalogue)[:1_000]
    if metric != "cosine":
        assert expected.tobytes() == rows.tobytes()
    else:
        assert np.allclose(expected, rows, rtol=1e-6, atol=1e-30)
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
        is_zero = ~served.catalogue.rows[:1_000].any(axis=1)
        assert np.allclose(np.where(is_zero, 0, 1), lengths, atol=1e-6)


async def test_attributes_come_back_as_they_were(shelf: Shelf, shelf_served: Served) -> None:
    """Numbers as doubles, booleans, texts and lists of texts; what an item lacks is not there."""
    for start in range(0, ITEM_COUNT, 500):
        part = shelf.attributes[start : start + 500]
        read = await shelf_served.client.get_items(shelf.catalogue.ids[start : start + 500])
        assert part == [dict(item.attributes) for item in read.items]
        kinds = [{name: type(value) for name, value in item.attributes.items()} for item in read.items]
        assert {"price": float, "stock": float} == {
            name: kind for each in kinds for name, kind in each.items() if name in ("price", "stock")
        }
        assert {bool} == {each["is_new"] for each in kinds if "is_new" in each}


async def test_too_many_embedding_values_are_refused(shelf: Shelf, shelf_served: Served) -> None:
    """Ids times dimension may reach 800,000, and not more; without embeddings the ids alone count."""
    ids = shelf.catalogue.ids[LONG_COUNT:]
    request = GetItemsRequest(items=ids_message(ids[:782]), with_embeddings=True)
    failure = await failure_of(shelf_served.items.GetItems(request, timeout=DEADLINE_S))
    assert ("INVALID_ARGUMENT", "INVALID_REQUEST", ("items",)) == (
        failure.code,
        failure.reason,
        failure.fields,
    )
    del request.items.integers[781:]
    answer = await shelf_served.items.GetItems(request, timeout=DEADLINE_S)
    assert 781 == len(answer.items)
    request = GetItemsRequest(items=ids_message(ids))
    answer = await shelf_served.items.GetItems(request, timeout=DEADLINE_S)
    assert ids == [id_of(item) for item in answer.items]


async def test_items_beyond_4_mib_are_refused(shelf: Shelf, shelf_served: Served) -> None:
    """Long attributes may make an answer too large: it is refused with a reason, fewer are not."""
    ids = shelf.catalogue.ids[:LONG_COUNT]
    request = GetItemsRequest(items=ids_message([*ids]))
    failure = await failure_of(shelf_served.items.GetItems(request, timeout=DEADLINE_S))
    assert ("INVALID_ARGUMENT", "INVALID_REQUEST", ("items",)) == (
        failure.code,
        failure.reason,
        failure.fields,
    )
    assert "4 MiB" in failure.message
    request = GetItemsRequest(items=ids_message(ids[:500]))
    answer = await shelf_served.items.GetItems(request, timeout=DEADLINE_S)
    assert ids[:500] == [id_of(item) for item in answer.items]


async def pages_of(served: Served, request: ScanItemsRequest) -> list[ScanItemsResponse]:
    return [page async for page in served.items.ScanItems(request, timeout=60)]


def require_whole_scan(
    served: Served, pages: Sequence[ScanItemsResponse], key_start: int, key_end: int
) -> None:
    """The pages hold every item of the range once, in key order; the last alone certifies it."""
    catalogue = served.catalogue
    expected = sorted(
        (key, each)
        for key, each in zip(catalogue.keys, catalogue.ids, strict=True)
        if key_start <= key < key_end
    )
    assert expected == [
        (key, id_of(item)) for page in pages for key, item in zip(page.keys, page.items, strict=True)
    ]
    assert [False] * (len(pages) - 1) + [True] == [page.HasField("certificate") for page in pages]
    assert all(page.ByteSize() <= 1 << 20 for page in pages)
    certificate = pages[-1].certificate
    assert not certificate.missed_ranges
    assert certificate.item_count == certificate.item_count_searched
    assert (1, served.release.name) == (certificate.map_epoch, certificate.release)


@pytest.mark.parametrize("with_embeddings", [False, True])
@pytest.mark.parametrize("metric", METRICS)
async def test_a_scan_is_the_catalogue_in_key_order(
    nasty: dict[str, Served], metric: str, with_embeddings: bool
) -> None:
    """Every item once, ascending by key, with its embedding where asked for."""
    served = nasty[metric]
    pages = await pages_of(served, ScanItemsRequest(with_embeddings=with_embeddings))
    require_whole_scan(served, pages, 0, KEY_COUNT)
    items = [item for page in pages for item in page.items]
    assert {with_embeddings} == {item.HasField("embedding") for item in items}
    if with_embeddings:
        places = served.catalogue.rows_of([id_of(item) for item in items])  # type: ignore[arg-type]
        rows = np.array([item.embedding.values for item in items], np.float32)
        assert np.allclose(stored_rows(served.catalogue)[places], rows, rtol=1e-6, atol=1e-30)


async def test_a_scan_of_large_items_comes_in_pages(shelf: Shelf, shelf_served: Served) -> None:
    """Items of 13 MiB in all come in messages of at most 1 MiB, with all of their attributes."""
    pages = await pages_of(shelf_served, ScanItemsRequest(with_embeddings=True))
    require_whole_scan(shelf_served, pages, 0, KEY_COUNT)
    assert len(pages) > 10
    items = {id_of(item): item for page in pages for item in page.items}
    ids: Sequence[int | str] = shelf.catalogue.ids
    for each, attributes in zip(ids, shelf.attributes, strict=True):
        assert attributes.keys() == items[each].attributes.keys()


async def test_scans_of_ranges_of_keys_are_exact(l2_nasty: Served) -> None:
    """The first key is in, the last is not; at, beside and between items, shards and both ends."""
    cluster_map = await l2_nasty.client.cluster_map()
    starts = [shard.key_start for shard in cluster_map.shards]
    assert 3 == len(starts)
    keys = sorted(l2_nasty.catalogue.keys)
    places = [0, 1, keys[1], keys[1] + 1, keys[99], *starts[1:], keys[-2], KEY_COUNT - 1]
    beside = {place + step for place in places for step in (-1, 0, 1)}
    edges = sorted(edge for edge in beside if 0 <= edge < KEY_COUNT)
    pairs = [*pairwise(edges), (0, 1), (0, keys[-1]), (keys[5], keys[-5]), (starts[1], starts[2])]
    pairs += [(edge, KEY_COUNT) for edge in edges]
    for key_start, key_end in pairs:
        request = ScanItemsRequest(key_start=key_start, key_end=key_end % KEY_COUNT)
        require_whole_scan(l2_nasty, await pages_of(l2_nasty, request), key_start, key_end)


async def test_a_scan_may_go_on_after_the_last_key(cosine_nasty: Served) -> None:
    """What was received and a scan from the key after it make up the whole catalogue."""
    pages = await pages_of(cosine_nasty, ScanItemsRequest())
    last = pages[0].keys[-1]
    rest = await pages_of(cosine_nasty, ScanItemsRequest(key_start=last + 1))
    assert sorted(cosine_nasty.catalogue.keys) == [
        key for page in [pages[0], *rest] for key in page.keys
    ]
