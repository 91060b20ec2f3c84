"""Coverage is counted from ownership."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.cluster_map import Shard
from router.coverage import ShardResult, cover, of_all

REASONS = ("DEADLINE_SPENT", "REPLICA_UNAVAILABLE")

results = st.builds(
    ShardResult,
    st.integers(0, 50),
    st.just(""),
    st.floats(0, 1),
) | st.builds(ShardResult, st.none() | st.integers(0, 50), st.sampled_from(REASONS))


def shards_of(counts: list[int]) -> list[Shard]:
    """Shards with these item counts in the map."""
    return [
        Shard(name=f"s-{place}", key_start=place, key_end=place + 1, item_count=count)
        for place, count in enumerate(counts)
    ]


def named(values: list[ShardResult]) -> dict[str, ShardResult]:
    return {f"s-{place}": value for place, value in enumerate(values)}


@given(
    st.lists(st.tuples(st.integers(0, 50), results), max_size=6),
    st.dictionaries(st.sampled_from([f"s-{place}" for place in range(6)]), st.integers(0, 50)),
)
def test_every_range_counts_once(
    pairs: list[tuple[int, ShardResult]], last_counts: dict[str, int]
) -> None:
    """Searched ranges count as they answered, missed ones as last known, else as the map says."""
    shards, outcome = shards_of([count for count, _ in pairs]), named([each for _, each in pairs])
    coverage = cover(shards, outcome, last_counts)
    searched = [each.item_count or 0 for each in outcome.values() if not each.missed_reason]
    missed = [
        (each, last_counts.get(each.name, each.item_count), outcome[each.name].missed_reason)
        for each in shards
        if outcome[each.name].missed_reason
    ]
    assert missed == [(each.shard, each.item_count, each.reason) for each in coverage.missed]
    assert sum(searched) == coverage.item_count_searched
    assert sum(searched) + sum(count for _, count, _ in missed) == coverage.item_count
    assert 0 <= coverage.share <= 1
    assert 0 <= coverage.probe_recall <= 1 + 1e-9


@given(st.lists(st.integers(0, 50), max_size=5))
def test_coverage_is_1_where_nothing_was_missed(counts: list[int]) -> None:
    """Also in an empty catalogue, and in one without shards."""
    coverage = cover(shards_of(counts), named([ShardResult(count) for count in counts]), {})
    assert (1.0, ()) == (coverage.share, coverage.missed)


def test_a_missed_range_counts_what_was_last_known() -> None:
    """A count that a replica reported once takes precedence over that of the map."""
    shards = shards_of([100, 100])
    outcome = named([ShardResult(150), ShardResult(None, "DEADLINE_SPENT")])
    assert 150 / 250 == cover(shards, outcome, {}).share
    assert 150 / 200 == cover(shards, outcome, {"s-1": 50, "s-0": 7}).share


def test_nothing_searched_is_no_coverage() -> None:
    """Missed ranges of an empty catalogue are missed: coverage 0, and a recall of nothing is 1."""
    coverage = cover(shards_of([0]), named([ShardResult(None, "DEADLINE_SPENT")]), {})
    assert (0.0, 1.0) == (coverage.share, coverage.probe_recall)


def test_recall_is_weighed_by_items() -> None:
    """The recall of what was searched is that of its items, missed ranges left out."""
    outcome = named([ShardResult(300, "", 1.0), ShardResult(100, "", 0.8), ShardResult(None, "X", 0.0)])
    coverage = cover(shards_of([1, 1, 1]), outcome, {})
    assert pytest.approx(0.95) == coverage.probe_recall


@given(st.integers(1, 4), st.lists(st.lists(results, min_size=4, max_size=4), min_size=1, max_size=5))
def test_a_range_was_searched_if_all_searches_searched_it(
    shard_count: int, searches: list[list[ShardResult]]
) -> None:
    """Of several searches a range counts as searched where none of them missed it."""
    columns = [each[:shard_count] for each in searches]
    combined = of_all([named(column) for column in columns])
    expected = {
        f"s-{place}": any(column[place].missed_reason for column in columns)
        for place in range(shard_count)
    }
    assert expected == {name: bool(each.missed_reason) for name, each in combined.items()}
    for place, name in enumerate(expected):
        assert combined[name] in [column[place] for column in columns]
