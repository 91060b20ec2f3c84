"""Recall by score, the bound that a width must hold, and the width that is chosen."""

import math
import statistics
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.merge import NO_SCORE
from rangefinder.width import Calibration, RecallCurve, RecallPoint
from shard_server.calibration import (
    PROBE_COUNT_MIN,
    calibrate,
    lower_bound,
    recall_of_queries,
    widened,
)
from shard_server.index import UnreachableRows

Scores = npt.NDArray[np.float32]


def matrix(*rows: list[float]) -> Scores:
    """Scores of several queries, padded as answers are."""
    width = max(len(row) for row in rows)
    padded = np.full((len(rows), width), NO_SCORE)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded


@pytest.mark.parametrize(
    ("found", "truth", "recall"),
    [
        ([3, 2, 1], [3, 2, 1], 1.0),
        ([3, 1, 0], [3, 2, 1], 2 / 3),
        ([0, 0, 0], [3, 2, 1], 0.0),
        ([3, 2, 2], [3, 2, 2], 1.0),  # Three items scored 2: any two of them will do.
        ([2, 2, 2], [3, 2, 2], 1.0),  # An item as good as the last true one counts.
        ([2, 2, 2, 2], [3, 2], 1.0),  # But no more than there are to find.
        ([3], [3, 2], 0.5),  # Fewer found than wanted.
        ([], [3, 2], 0.0),
        ([3, 2], [3], 1.0),  # A segment with fewer items than were asked for.
        ([], [], 1.0),  # Nothing to find.
        ([1], [], 1.0),
        ([-5, -7], [-5, -6], 0.5),
    ],
)
def test_recall_is_counted_by_score(found: list[float], truth: list[float], recall: float) -> None:
    """An item counts where its score reaches that of the last true one; padding never does."""
    others = [[9.0, 8.0, 7.0, 6.0], [9.0, 8.0, 7.0, 6.0]]  # Of a query beside it.
    recalls = recall_of_queries(matrix(found, others[0]), matrix(truth, others[1]))
    assert [pytest.approx(recall), 1.0] == recalls.tolist()


@given(st.lists(st.sampled_from([0.0, 0.5, 0.9, 1.0]), min_size=1, max_size=50))
def test_the_bound_is_the_end_of_a_one_sided_interval(recalls: list[float]) -> None:
    """The bound is 1.645 standard errors under the mean; at the mean where all are equal."""
    error = statistics.pstdev(recalls) / math.sqrt(len(recalls))
    expected = statistics.fmean(recalls) - 1.645 * error
    assert pytest.approx(expected, abs=1e-12) == lower_bound(np.array(recalls))


class StepIndex:
    """An index that finds everything from a width on, and misses the last item of each probe below."""

    def __init__(self, truth: Scores, complete_from: dict[int, int], reach: int = 10_000) -> None:
        self.truth, self.complete_from, self.reach = truth, complete_from, reach
        self.asked: list[tuple[int, int, int]] = []

    def search(self, width: int, item_count: int, probe_count: int) -> Scores:
        self.asked.append((width, item_count, probe_count))
        if width > self.reach:
            raise UnreachableRows(f"{width} rows")
        found = self.truth[:probe_count, :item_count].copy()
        if width < self.complete_from[item_count]:
            found[:, -max(item_count // 10, 1) :] = -1
        return found

    def widths(self, item_count: int) -> list[int]:
        return [width for width, count, _ in self.asked if count == item_count]


def truth_of(probe_count: int, item_count: int = 1000) -> Scores:
    """Different scores for every place, so that nothing ties."""
    row = np.arange(item_count, 0, -1, dtype=np.float32)
    return np.tile(row, (probe_count, 1))


def test_the_narrowest_width_that_holds_the_target_is_chosen() -> None:
    """Each item count gets the first step of the ladder whose bound reaches the target."""
    index = StepIndex(truth_of(200), {10: 40, 100: 240, 1000: 1920})
    calibration = calibrate(index.truth, index.search, 100_000, 0.98)
    chosen = {curve.item_count: curve.width for curve in calibration.curves}
    assert {10: 40, 100: 240, 1000: 1920} == chosen
    recalls = {point.width: point.recall for point in calibration.curves[0].points}
    assert {10: 0.9, 15: 0.9, 20: 0.9, 30: 0.9, 40: 1.0} == recalls


def test_a_target_that_the_mean_holds_by_chance_is_not_enough() -> None:
    """The bound decides, not the mean: a mean at the target with a spread takes a wider step."""
    truth = truth_of(100, 10)

    def search(width: int, item_count: int, probe_count: int) -> Scores:
        found = truth[:probe_count, :item_count].copy()
        if width < 60:
            found[:20, -1] = -1  # A fifth of the probes have 0.9: 0.98 in the mean.
        return found

    (curve,) = calibrate(truth, search, 50_000, 0.98).curves[:1]
    assert 0.98 == curve.points[0].recall
    assert 60 == curve.width


def test_no_width_is_chosen_where_none_holds_the_target() -> None:
    """Where no step up to half the rows holds the target, there is no width: exact search."""
    index = StepIndex(truth_of(50), {10: 10_000, 100: 10_000, 1000: 10_000})
    calibration = calibrate(index.truth, index.search, 2_000, 0.98)
    assert [(10, None), (100, None), (1000, None)] == [
        (c.item_count, c.width) for c in calibration.curves
    ]
    assert [10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960] == index.widths(10)
    assert [] == index.widths(1000)  # 1,280 is more than half of the rows.


def test_an_index_that_does_not_reach_its_rows_is_not_asked_for_more() -> None:
    """Where a width asks for more rows than the index reaches, no wider one is tried or chosen."""
    index = StepIndex(truth_of(50), {10: 10, 100: 240, 1000: 1280}, reach=200)
    calibration = calibrate(index.truth, index.search, 50_000, 0.98)
    assert [(10, 10), (100, None), (1000, None)] == [
        (curve.item_count, curve.width) for curve in calibration.curves
    ]
    assert [120, 160, 240] == index.widths(100)
    assert [120, 160] == [point.width for point in calibration.curves[1].points]


@pytest.mark.parametrize(
    ("complete_from", "reach", "width"),
    [
        (10, 10_000, 40),  # What was chosen holds: a narrower one is not looked for.
        (40, 10_000, 40),
        (60, 10_000, 60),
        (50_000, 10_000, None),
        (160, 120, None),  # Out of reach before it holds.
    ],
)
def test_a_completed_index_may_take_a_wider_search(
    complete_from: int, reach: int, width: int | None
) -> None:
    """From the width that was chosen on, the first is taken that holds the target now."""
    index = StepIndex(truth_of(50), {10: complete_from, 100: 240}, reach)
    chosen = RecallCurve(item_count=10, width=40, points=(RecallPoint(width=40, recall=0.99),))
    none = RecallCurve(item_count=100, width=None)
    before = Calibration(curves=(chosen, none))
    after = widened(before, index.truth, index.search, 100_000, 0.98)
    assert Calibration(curves=(replace(chosen, width=width), none)) == after
    assert min(index.widths(10)) == 40
    assert [] == index.widths(100)


def test_only_item_counts_that_the_segment_has_rows_for() -> None:
    """A curve for k items needs more than k rows."""
    index = StepIndex(truth_of(50), {10: 10, 100: 120, 1000: 1280})
    counts = [
        [curve.item_count for curve in calibrate(index.truth, index.search, rows, 0.98).curves]
        for rows in (10, 11, 1_000, 1_001, 5_000)
    ]
    assert [[], [10], [10, 100], [10, 100, 1000], [10, 100, 1000]] == counts


def test_too_few_probes_choose_nothing() -> None:
    """With fewer than 20 probes no width is trusted; 20 are enough."""
    for probe_count, width in ((PROBE_COUNT_MIN - 1, None), (PROBE_COUNT_MIN, 10)):
        index = StepIndex(truth_of(probe_count), {10: 10, 100: 100, 1000: 1000})
        assert width == calibrate(index.truth, index.search, 5_000, 0.98).curves[0].width


def test_the_curve_of_the_most_items_takes_fewer_probes() -> None:
    """Recall@1000 is measured with 100 probes, the others with all."""
    index = StepIndex(truth_of(300), {10: 10, 100: 120, 1000: 1280})
    calibrate(index.truth, index.search, 50_000, 0.98)
    assert {(10, 300), (100, 300), (1000, 100)} == {(count, probes) for _, count, probes in index.asked}
