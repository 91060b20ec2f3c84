"""Calibration: recall against search width on probes, and the narrowest width that holds a target.

Recall is counted by score, not by key: of items with equal scores any may be returned. Pure.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rangefinder.merge import NO_SCORE, Scores
from rangefinder.width import CALIBRATED_ITEM_COUNTS, LADDER, Calibration, RecallCurve, RecallPoint
from shard_server.index import UnreachableRows

# One-sided 95 %: the target holds for queries like the probes, not only for the probes.
_CONFIDENCE = 1.645

# Fewer probes than this say too little: such a segment is searched exactly.
PROBE_COUNT_MIN = 20

# Probes that the curve of the most items is measured with: enough for it, as each one weighs 1,000.
_WIDE_PROBE_COUNT_MAX = 100

# Past this recall a curve says nothing more.
_RECALL_ENOUGH = 0.999

# Scores of the best `width` items of each probe, as the index finds them at this width.
SearchAtWidth = Callable[[int, int, int], Scores]


def recall_of_queries(found: Scores, truth: Scores) -> npt.NDArray[np.float64]:
    """Recall of each query: the share of its true items found; both (queries, item_count), sorted.

    An item found counts where its score reaches that of the last true one. Where the truth is empty,
    recall is 1.
    """
    true_counts = np.count_nonzero(truth > NO_SCORE, axis=1)
    last = np.where(
        true_counts > 0, truth[np.arange(len(truth)), np.maximum(true_counts, 1) - 1], np.inf
    )
    hits = np.count_nonzero((found >= last[:, None]) & (found > NO_SCORE), axis=1)
    recall: npt.NDArray[np.float64] = np.where(
        true_counts > 0, np.minimum(hits, true_counts) / np.maximum(true_counts, 1), 1.0
    )
    return recall


def calibrate(
    truth: Scores, search: SearchAtWidth, row_count: int, recall_target: float
) -> Calibration:
    """Measure the curve of each item count that the segment has rows for.

    truth: exact scores of each probe's best items, best first, shape (probes, most items).
    search(width, item_count, probe_count) gives the scores found for the first probe_count probes:
    (probe_count, item_count), best first. Raises UnreachableRows, as an index does.
    """
    curves = [
        _measure(item_count, truth, search, row_count, recall_target)
        for item_count in CALIBRATED_ITEM_COUNTS
        if item_count < row_count
    ]
    return Calibration(curves=tuple(curves))


def _measure(
    item_count: int, truth: Scores, search: SearchAtWidth, row_count: int, recall_target: float
) -> RecallCurve:
    probe_count = _probe_count(item_count, truth)
    if probe_count < PROBE_COUNT_MIN:
        return RecallCurve(item_count=item_count, width=None)
    points: list[RecallPoint] = []
    chosen: int | None = None
    for width in _widths(item_count, row_count):
        try:
            found = search(width, item_count, probe_count)
        except UnreachableRows:
            break  # The index reaches fewer rows: a wider search asks for more.
        recalls = recall_of_queries(found, truth[:probe_count, :item_count])
        points.append(RecallPoint(width=width, recall=round(float(recalls.mean()), 5)))
        if chosen is None and lower_bound(recalls) >= recall_target:
            chosen = width
        # Small answers are cheap to measure, so their curve goes on past the target.
        if chosen is not None and (item_count >= 100 or points[-1].recall >= _RECALL_ENOUGH):
            break
    return RecallCurve(item_count=item_count, width=chosen, points=tuple(points))


def widened(
    calibration: Calibration,
    truth: Scores,
    search: SearchAtWidth,
    row_count: int,
    recall_target: float,
) -> Calibration:
    """The calibration with the narrowest widths, from its own on, that hold the target here, too.

    For an index that was completed after it was calibrated: what was added last may be harder to find
    than all before it, and a node serves no index that misses its target on the probes.
    """
    curves = [_widen(curve, truth, search, row_count, recall_target) for curve in calibration.curves]
    return Calibration(curves=tuple(curves))


def _widen(
    curve: RecallCurve, truth: Scores, search: SearchAtWidth, row_count: int, recall_target: float
) -> RecallCurve:
    probe_count = _probe_count(curve.item_count, truth)
    for width in _widths(curve.item_count, row_count):
        if curve.width is None or width < curve.width:
            continue
        try:
            found = search(width, curve.item_count, probe_count)
        except UnreachableRows:
            break
        recalls = recall_of_queries(found, truth[:probe_count, : curve.item_count])
        if recalls.mean() >= recall_target:
            return replace(curve, width=width)
    return replace(curve, width=None)


def _probe_count(item_count: int, truth: Scores) -> int:
    return len(truth) if item_count < 1000 else min(len(truth), _WIDE_PROBE_COUNT_MAX)


def _widths(item_count: int, row_count: int) -> Sequence[int]:
    """Steps worth measuring: a width of half the rows costs as much as an exact search."""
    return [width for width in LADDER if item_count <= width <= row_count // 2]


def lower_bound(recalls: npt.NDArray[np.float64]) -> float:
    """Lower end of the one-sided 95 % confidence interval of the mean."""
    return float(recalls.mean() - _CONFIDENCE * recalls.std() / math.sqrt(len(recalls)))
