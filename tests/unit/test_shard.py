"""Searching and reading shards: exact answers are the truth, and batches change nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rangefinder.errors import DeadlineSpent
from rangefinder.merge import NO_SCORE, Hits
from shard_server.index import UnreachableRows, VectorIndex
from shard_server.segment import Search, Segment
from shard_server.shard import Shard, search_shards
from tests.unit.built import DIMENSION, ITEM_COUNT, RECALL_TARGET, Built, Rows

WIDTHS = (0, 10, 40, 320, 640, 10_000)
STRANGER = 4_711  # A key that no item has.

seeds = st.integers(0, 2**32 - 1)


def column(counts: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.array(counts, np.int64)


def keys_of(keys: Sequence[int]) -> npt.NDArray[np.uint64]:
    return np.array(keys, np.uint64)


def pairs(hits: Hits, query: int) -> list[tuple[int, float]]:
    """Keys and scores of one query's hits."""
    count = int(hits.counts[query])
    keys, scores = hits.keys[query, :count].tolist(), hits.scores[query, :count].tolist()
    return list(zip(keys, scores, strict=True))


def random_search(small: Built, seed: int, *, width: int, exact: bool) -> Search:
    """1 to 9 queries that want few or many items, with some of the best and others excluded."""
    random = np.random.default_rng(seed)
    queries = small.queries[random.integers(0, 40, random.integers(1, 10))]
    excluded = []
    for query in queries:
        best = [key for key, _ in small.truth(query, 60)]
        chosen = random.choice(best, random.choice([0, 1, 5, 50]), replace=False).tolist()
        others = random.choice(np.array(small.keys, np.uint64), random.integers(0, 9)).tolist()
        excluded.append(keys_of([*chosen, *others, STRANGER]))
    return Search(
        queries=queries,
        wanted=random.choice([1, 3, 10, 11, 50, 400, 2_000], len(queries)).astype(np.int64),
        width=width,
        exact=exact,
        excluded=excluded if random.random() < 0.7 else (),
    )


def one_by_one(shard: Shard, search: Search) -> list[list[tuple[int, float]]]:
    """Each query of a search, searched alone."""
    return [
        pairs(
            shard.search(
                Search(
                    queries=search.queries[place : place + 1],
                    wanted=search.wanted[place : place + 1],
                    width=search.width,
                    exact=search.exact,
                    excluded=search.excluded[place : place + 1],
                )
            ),
            0,
        )
        for place in range(len(search.queries))
    ]


@settings(max_examples=25)
@given(seed=seeds, width=st.sampled_from(WIDTHS), exact=st.booleans())
def test_a_batch_is_its_queries_one_by_one(small: Built, seed: int, width: int, exact: bool) -> None:
    """Whatever else a batch holds, each query has the bits that it has alone, at any width."""
    search = random_search(small, seed, width=width, exact=exact)
    for shard in small.shards:
        hits = shard.search(search)
        assert one_by_one(shard, search) == [pairs(hits, query) for query in range(len(search.queries))]


@settings(max_examples=25)
@given(seed=seeds)
def test_exact_answers_are_brute_force(small: Built, seed: int) -> None:
    """Over all shards, with items excluded and k beyond the catalogue: the oracle's keys and bits."""
    search = random_search(small, seed, width=0, exact=True)
    hits = search_shards(small.shards, search)
    excluded = [frozenset(each.tolist()) for each in search.excluded] or [frozenset[int]()] * 10
    for query, wanted in enumerate(search.wanted.tolist()):
        truth = small.truth(search.queries[query], wanted, excluded[query])
        assert truth == pairs(hits, query)


@settings(max_examples=25)
@given(seed=seeds, width=st.sampled_from(WIDTHS))
def test_excluded_items_are_left_out_and_the_count_is_filled(
    small: Built, seed: int, width: int
) -> None:
    """An answer of any width holds no excluded item, no item twice, and as many as there are."""
    search = random_search(small, seed, width=width, exact=False)
    hits = search_shards(small.shards, search)
    excluded = [set(each.tolist()) for each in search.excluded] or [set[int]()] * 10
    for query, wanted in enumerate(search.wanted.tolist()):
        found = [key for key, _ in pairs(hits, query)]
        left = ITEM_COUNT - len(excluded[query] & set(small.keys))
        assert min(wanted, left) == len(found) == len(set(found))
        assert set() == set(found) & excluded[query]


def test_the_default_width_holds_the_recall_target(small: Built) -> None:
    """Of the true best 10 of queries that no one calibrated with, 0.98 are found at width 0."""
    queries = small.queries[10:]
    hits = search_shards(small.shards, Search(queries=queries, wanted=np.full(len(queries), 10)))
    found = 0
    for place, query in enumerate(queries):
        last = small.truth(query, 10)[-1][1]
        found += sum(score >= last for _, score in pairs(hits, place))
    assert found >= RECALL_TARGET * 10 * len(queries)


@pytest.mark.parametrize(("width", "exact"), [(0, False), (10, False), (10_000, False), (0, True)])
def test_more_than_there_is_returns_all_there_is(small: Built, width: int, exact: bool) -> None:
    """k beyond the rows returns every item once, in the order of the documents."""
    query = small.queries[5:6]
    wanted = column([10_000])
    hits = search_shards(small.shards, Search(queries=query, wanted=wanted, width=width, exact=exact))
    assert small.truth(query[0], 10_000) == pairs(hits, 0)


class Recorded:
    """An index that notes what it is asked, and fails for queries whose first value is given."""

    def __init__(self, index: VectorIndex, unreachable: float) -> None:
        self.index, self.unreachable = index, unreachable
        self.asked: list[tuple[int, int]] = []

    def search(self, queries: Rows, width: int) -> npt.NDArray[np.int64]:
        self.asked.append((len(queries), width))
        if (queries[:, 0] == self.unreachable).any():
            raise UnreachableRows
        return self.index.search(queries, width)


def recorded(small: Built, unreachable: float = np.inf) -> tuple[Segment, Recorded]:
    segment = small.shards[0].segments[0]
    assert segment.index is not None
    index = Recorded(segment.index, unreachable)
    return replace(segment, index=index), index


def search_of(queries: Rows, item_count: int, **others: Any) -> Search:
    return Search(queries=queries, wanted=np.full(len(queries), item_count), **others)


def test_a_query_that_the_index_cannot_answer_is_answered_exactly(small: Built) -> None:
    """Where the index does not reach enough rows, that query is searched exactly, and no other."""
    queries = small.queries[20:28]
    segment, _ = recorded(small, float(queries[3, 0]))
    whole = small.shards[0].segments[0]
    counted = segment.fallbacks.count
    hits = segment.search(search_of(queries, 10, width=10))
    assert counted + 1 == segment.fallbacks.count
    by_index = whole.search(search_of(queries, 10, width=10))
    exactly = whole.search(search_of(queries, 10, exact=True))
    expected = [pairs(exactly if query == 3 else by_index, query) for query in range(8)]
    assert expected == [pairs(hits, query) for query in range(8)]


@pytest.mark.parametrize(
    ("search", "asked"),
    [
        ({"exact": True}, []),
        ({"width": 10}, [(2, 10)]),
        ({"width": 11}, [(2, 15)]),  # A step of the ladder.
        ({"width": 640}, [(2, 640)]),
        ({"width": 641}, []),  # 960 is over half of the 1,500 rows.
        ({"width": 5}, [(2, 10)]),
        ({"width": 10, "excluded": [keys_of(range(25, 30)), keys_of([])]}, [(2, 10)]),  # None of ours.
    ],
)
def test_the_plan_of_a_search(
    small: Built, search: dict[str, Any], asked: list[tuple[int, int]]
) -> None:
    """A width is rounded up to a step; one that costs as much as all rows is searched exactly."""
    segment, index = recorded(small)
    segment.search(search_of(small.queries[20:22], 10, **search))
    assert asked == index.asked


def test_excluded_items_widen_the_search_of_their_query_alone(small: Built) -> None:
    """A query with items to leave out gets a wider search, the others of its batch do not."""
    segment, index = recorded(small)
    excluded = [keys_of([]), keys_of(segment.keys[:35].tolist()), keys_of([])]
    segment.search(search_of(small.queries[20:23], 10, width=10, excluded=excluded))
    assert [(2, 10), (1, 60)] == sorted(index.asked, key=lambda asked: asked[1])


@pytest.mark.parametrize("exact", [True, False])
def test_a_passed_deadline_ends_a_search(small: Built, exact: bool) -> None:
    """Neither an exact search nor one by the index begins after the deadline."""

    def spent() -> None:
        raise DeadlineSpent("too late")

    search = search_of(small.queries[:2], 10, width=0 if exact else 10, exact=exact)
    with pytest.raises(DeadlineSpent):
        small.shards[0].search(replace(search, require_time_left=spent))


def test_rows_of_keys_are_those_that_are_there(small: Built) -> None:
    """Keys that the segment holds are found in any order; others, at either end too, are not."""
    segment = small.shards[0].segments[0]
    between = int(segment.keys[3]) + 1  # In no catalogue here do two keys follow one another.
    asked = keys_of([2**64 - 1, int(segment.keys[7]), between, int(segment.keys[-1]), STRANGER])
    assert [7, len(segment.keys) - 1] == segment.rows_of_keys(asked).tolist()
    assert [] == segment.rows_of_keys(keys_of([])).tolist()


def test_answers_are_finite_and_padded_at_the_end(small: Built) -> None:
    """Scores of hits are finite and descend; what follows is padding."""
    search = replace(random_search(small, 1, width=40, exact=False), wanted=column([2_000]))
    search = replace(search, queries=search.queries[:1], excluded=())
    scores = small.shards[0].search(search).scores[0]
    count = int(np.count_nonzero(scores > NO_SCORE))
    assert np.isfinite(scores[:count]).all()
    assert (np.diff(scores[:count]) <= 0).all()
    assert (scores[count:] == NO_SCORE).all()
    assert (DIMENSION,) == search.queries[0].shape
