"""Reading items of shards: by key, and page by page."""

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from rangefinder.metric import Metric
from shard_server.shard import StoredItem
from tests.unit.built import Built

places_of_items = st.lists(st.integers(0, 2_999), max_size=20)


def keys_of(keys: list[int]) -> npt.NDArray[np.uint64]:
    return np.array(keys, np.uint64)


def read(small: Built, keys: list[int]) -> dict[int, StoredItem]:
    """Items of all shards by key, each found once."""
    found = [item for shard in small.shards for item in shard.read(keys_of(keys))]
    by_key = {item.key: item for item in found}
    assert len(found) == len(by_key)
    return by_key


def require_same(small: Built, place: int, item: StoredItem) -> None:
    """An item has the id, the attributes and the row of its place in the source."""
    assert small.keys[place] == item.key
    assert (small.texts[place] if small.texts else None) == item.text
    assert (small.attributes[place] if small.attributes else {}) == item.attributes
    row = small.rows[place]
    if small.metric is Metric.COSINE:  # Kept at unit length.
        np.testing.assert_allclose(row, item.row * np.linalg.norm(row.astype(np.float64)), rtol=1e-6)
    else:
        assert row.tolist() == item.row.tolist()


@settings(max_examples=25)
@given(places_of_items)
def test_items_are_read_as_they_were_given(small: Built, places: list[int]) -> None:
    """Text, attributes of each type and embedding of an item are those of the source."""
    found = read(small, [small.keys[place] for place in set(places)])
    assert {small.keys[place] for place in places} == set(found)
    for place in places:
        require_same(small, place, found[small.keys[place]])


def test_items_that_do_not_exist_are_left_out(small: Built) -> None:
    """Keys without an item give none, beside keys with one."""
    keys = [4_711, small.keys[9], 2**64 - 1, small.keys[9] ^ 1]
    assert {small.keys[9]} == set(read(small, keys))
    assert {} == read(small, [])


def test_the_text_of_a_key(small: Built) -> None:
    """In a text cluster a shard gives the ids of the keys that it holds, in their order; else none."""
    text_of = dict(zip(small.keys, small.texts, strict=False))
    for shard in small.shards:
        assert bool(text_of) == (shard.segments[0].texts is not None)
        if not text_of:
            continue
        keys = shard.segments[0].keys[[5, 2, 2, 1_400]]
        assert [text_of[key] for key in keys.tolist()] == shard.texts_of(keys)


@settings(max_examples=15)
@given(st.sampled_from([1, 7, 250, 5_000]), st.data())
def test_pages_walk_all_items_in_key_order(small: Built, page_items: int, data: st.DataObject) -> None:
    """Page after page of any size, every item of a range comes once, in key order."""
    ascending = sorted(small.keys)
    first = data.draw(st.integers(0, len(ascending) - 1))
    last = min(first + 40 * page_items, len(ascending))
    key_start, key_end = ascending[first], ascending[last] if last < len(ascending) else 2**64
    walked: list[int] = []
    for shard in small.shards:
        place = key_start
        while page := shard.page(place, key_end, page_items):
            assert len(page) <= page_items
            walked += [item.key for item in page]
            place = page[-1].key + 1
            if place >= key_end:
                break
    assert ascending[first:last] == walked


def test_a_page_holds_whole_items(small: Built) -> None:
    """Items of a page have their text, attributes and row."""
    place_of = {key: place for place, key in enumerate(small.keys)}
    for shard in small.shards:
        for item in shard.page(shard.about.key_start, shard.about.key_end, 50):
            require_same(small, place_of[item.key], item)


def test_a_page_of_nothing_is_empty(small: Built) -> None:
    """Beyond the last key, or between two keys, there is nothing."""
    shard = small.shards[0]
    last = int(shard.segments[0].keys[-1])
    assert [] == shard.page(last + 1, 2**64, 10)
    assert [] == shard.page(last - 1, last, 10) or last - 1 in small.keys
    assert [last] == [item.key for item in shard.page(last, last + 1, 10)]


def test_a_shard_knows_its_size(small: Built) -> None:
    """Items and bytes are counted over the segments."""
    for shard in small.shards:
        assert shard.about.item_count == shard.item_count
        files = small.manifest.files_below(f"shards/{shard.name}")
        assert sum(small.manifest.files[name].size for name in files) == shard.memory_bytes
