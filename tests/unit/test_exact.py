"""Exact search, bit for bit against brute force on rows that look for trouble."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.merge import NO_SCORE
from rangefinder.metric import Metric
from shard_server import exact
from shard_server.exact import as_hits, search_exactly
from shard_server.scoring import row_lengths, unit_rows
from tests.kit import oracle
from tests.unit.nasty_rows import Rows, nasty_queries, nasty_rows

METRICS = list(Metric)
Found = list[list[tuple[int, float]]]  # Row and score, best first, by query.

seeds = st.integers(0, 2**32 - 1)
item_counts = st.sampled_from([1, 2, 5, 20, 79, 80, 81, 10_000])


@contextmanager
def small_blocks(rows: int) -> Iterator[None]:
    """Few rows and queries at a time, so that a search takes many blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_BLOCK_ELEMENTS", 2 * rows)
        patch.setattr(exact, "_BLOCK_ROWS_MIN", rows)
        patch.setattr(exact, "_BLOCK_ROWS_MAX", rows)
        yield


def search(
    metric: Metric, rows: Rows, queries: Rows, wanted: int, excluded: Sequence[frozenset[int]] = ()
) -> Found:
    kept = unit_rows(rows) if metric is Metric.COSINE else rows
    numbers, scores = search_exactly(
        metric,
        kept,
        row_lengths(kept),
        queries,
        wanted,
        [np.array(sorted(each), np.int64) for each in excluded],
    )
    return [
        list(zip(row.tolist(), score.tolist(), strict=True))
        for row, score in zip(numbers, scores, strict=True)
    ]


def brute_force(
    metric: Metric, rows: Rows, queries: Rows, wanted: int, excluded: Sequence[frozenset[int]] = ()
) -> Found:
    nobody = [frozenset[int]()] * len(queries)
    return [
        oracle.best(oracle.scores(metric.value, rows, query), list(range(len(rows))), wanted, left_out)
        for query, left_out in zip(queries, excluded or nobody, strict=True)
    ]


@pytest.mark.parametrize("metric", METRICS)
@given(seed=seeds, wanted=item_counts)
def test_exact_search_is_brute_force(metric: Metric, seed: int, wanted: int) -> None:
    """Rows and scores are the oracle's to the last bit, ties by row, also for k beyond the rows."""
    rows, queries = nasty_rows(seed), nasty_queries(seed)
    assert brute_force(metric, rows, queries, wanted) == search(metric, rows, queries, wanted)


@pytest.mark.parametrize("metric", METRICS)
@given(seed=seeds, wanted=item_counts, block_rows=st.integers(1, 40), data=st.data())
def test_blocks_and_exclusions_change_nothing_else(
    metric: Metric, seed: int, wanted: int, block_rows: int, data: st.DataObject
) -> None:
    """In blocks of any size, with rows left out for each query, the answer is the oracle's."""
    rows, queries = nasty_rows(seed), nasty_queries(seed)
    some_rows = st.frozensets(st.integers(0, len(rows) - 1))
    excluded = data.draw(st.lists(some_rows, min_size=len(queries), max_size=len(queries)))
    with small_blocks(block_rows):
        found = search(metric, rows, queries, wanted, excluded)
    assert brute_force(metric, rows, queries, wanted, excluded) == found


@pytest.mark.parametrize("metric", METRICS)
def test_many_rows_in_many_blocks(metric: Metric) -> None:
    """Thousands of rows with duplicates, in blocks of hundreds, give the oracle's answer."""
    random = np.random.default_rng(5)
    rows = random.standard_normal((3_000, 12)).astype(np.float32)
    rows[2_000:2_500] = rows[:500]
    queries = np.concatenate([rows[:3], random.standard_normal((5, 12)).astype(np.float32)])
    excluded = [frozenset(random.choice(3_000, 200).tolist()) for _ in queries]
    with small_blocks(256):
        found = search(metric, rows, queries, 30, excluded)
    assert brute_force(metric, rows, queries, 30, excluded) == found


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-30, 1e3, 1e7, 1e10, 1e18])
def test_queries_far_from_all_rows_keep_ties_in_order(metric: Metric, scale: float) -> None:
    """Where float32 cannot tell the scores of rows apart, the smaller row number is first.

    To a query that is far enough away all rows are equally far.
    """
    random = np.random.default_rng(6)
    rows = random.standard_normal((200, 4)).astype(np.float32)
    queries = (scale * random.standard_normal((4, 4))).astype(np.float32)
    for block_rows in (7, 1_000):
        with small_blocks(block_rows):
            found = search(metric, rows, queries, 5)
        assert brute_force(metric, rows, queries, 5) == found


@pytest.mark.parametrize("wanted", [1, 2, 3, 6, 9])
def test_saturated_distances_are_ties(wanted: int) -> None:
    """Distances that float32 cannot hold are equal, and follow all that it can."""
    along = np.array([-1.84e19, -1.6e19, -1.8e19, 1e19, 0, 1.84e19, -1.7e19, 1e18], np.float32)
    rows = np.stack([along, np.zeros(8, np.float32)], axis=1)
    queries = np.array([[1.84e19, 0], [1.844e19, 0], [-1.84e19, 0], [1e10, 0]], np.float32)
    for block_rows in (1, 3, 100):
        with small_blocks(block_rows):
            found = search(Metric.L2, rows, queries, wanted)
        assert brute_force(Metric.L2, rows, queries, wanted) == found


def test_products_at_the_end_of_float32_are_ordered() -> None:
    """Inner products that overflow on the way, or saturate, are neither lost nor out of order."""
    along = np.array([1.84e19, -1.84e19, 1.8e19, 0, 1e-20, -1e19], np.float32)
    rows = np.stack([along, along], axis=1) * np.float32(0.7)
    queries = np.array([[1.3e19, 1.3e19], [-1.3e19, -1.3e19], [1.3e19, -1.3e19]], np.float32)
    for wanted in (1, 3, 6):
        expected = brute_force(Metric.INNER_PRODUCT, rows, queries, wanted)
        assert expected == search(Metric.INNER_PRODUCT, rows, queries, wanted)


@pytest.mark.parametrize("metric", METRICS)
def test_one_row(metric: Metric) -> None:
    """A segment of one row answers with it, and with nothing where it is excluded."""
    row = np.array([[3, 4]], np.float32)
    assert brute_force(metric, row, row, 10) == search(metric, row, row, 10)
    assert [[]] == search(metric, row, row, 10, [frozenset({0})])


@pytest.mark.parametrize("metric", METRICS)
def test_no_rows(metric: Metric) -> None:
    """Of nothing, nothing is found, for each query."""
    nothing = np.empty((0, 2), np.float32)
    assert [[], []] == search(metric, nothing, np.ones((2, 2), np.float32), 3)


def test_a_passed_deadline_ends_a_search_between_blocks() -> None:
    """require_time_left is called before every block, and what it raises ends the search."""
    rows = np.ones((10, 2), np.float32)
    calls = []

    class TimeIsUp(Exception): ...

    def require_time_left() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise TimeIsUp

    with small_blocks(2), pytest.raises(TimeIsUp):
        search_exactly(Metric.L2, rows, row_lengths(rows), rows[:1], 1, (), require_time_left)
    assert 3 == len(calls)


def test_rows_become_padded_hits() -> None:
    """Row numbers turn into keys; shorter answers are padded with NO_SCORE."""
    keys: npt.NDArray[np.uint64] = np.array([10, 20, 2**64 - 1], np.uint64)
    rows = [np.array([2, 0]), np.array([], np.int64), np.array([1])]
    scores = [np.array([2, 1], np.float32), np.array([], np.float32), np.array([0], np.float32)]
    hits = as_hits(keys, rows, scores)
    assert [2, 0, 1] == hits.counts.tolist()
    assert [2**64 - 1, 10] == hits.keys[0].tolist()
    assert [0, float(NO_SCORE)] == hits.scores[2].tolist()
    assert 20 == hits.keys[2, 0]
