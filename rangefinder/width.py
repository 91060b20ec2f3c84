"""The ladder of search widths, and the width that holds a recall target.

A search width is the length of the index's candidate list ("ef" in Malkov, Yashunin, "Efficient and
robust approximate nearest neighbor search using HNSW", TPAMI 2020). Every search uses a step of
the ladder, also a single one, so that gathering searches into a batch changes no answer. Pure.
"""

from bisect import bisect_left
from dataclasses import dataclass

ITEM_COUNT_MAX = 10_000
WIDTH_MAX = 10_000

# Each step is a third to a half wider than the last: as fine as measured recall can tell apart.
LADDER = (
    *(10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960),
    *(1280, 1920, 2560, 3840, 5120, 7680, WIDTH_MAX),
)

# Numbers of items that recall is measured for; others take the curve of the next larger one.
CALIBRATED_ITEM_COUNTS = (10, 100, 1000)


def step_for(width: int) -> int:
    """The narrowest step that is at least `width` (1 to WIDTH_MAX)."""
    return LADDER[bisect_left(LADDER, width)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallPoint:
    """Recall of one width, as measured on probes."""

    width: int
    recall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallCurve:
    """Recall@item_count against width on one segment, and the narrowest that holds the target.

    `width` is None where no step of the ladder holds it: then the segment is searched exactly.
    """

    item_count: int
    width: int | None
    points: tuple[RecallPoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a segment's index gives for which width. Curves are in order of item_count."""

    curves: tuple[RecallCurve, ...]

    def width_for(self, item_count: int) -> int | None:
        """The step that holds the recall target for `item_count` items; None: search exactly.

        Beyond the largest curve the width grows in proportion to the items.
        """
        for curve in self.curves:
            if item_count <= curve.item_count:
                return curve.width
        widest = self.curves[-1] if self.curves else None
        if widest is None or widest.width is None:
            return None
        needed = -(-widest.width * item_count // widest.item_count)
        return step_for(needed) if needed <= WIDTH_MAX else None
