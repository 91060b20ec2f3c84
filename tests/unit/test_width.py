"""The ladder of widths, and which width a number of items takes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.width import LADDER, WIDTH_MAX, Calibration, RecallCurve, step_for


def calibration_of(*pairs: tuple[int, int | None]) -> Calibration:
    return Calibration(
        curves=tuple(RecallCurve(item_count=count, width=width) for count, width in pairs)
    )


@given(st.integers(1, WIDTH_MAX))
def test_a_width_is_rounded_up_to_a_step(width: int) -> None:
    """The step is the least number of the ladder that is not under the width."""
    assert min(step for step in LADDER if step >= width) == step_for(width)


def test_the_ladder_is_a_ladder() -> None:
    """Steps ascend, each at most a half wider than the last, from 10 to the widest search."""
    assert (10, WIDTH_MAX) == (LADDER[0], LADDER[-1])
    assert all(low < high <= 1.5 * low for low, high in pairwise(LADDER))


CALIBRATED = calibration_of((10, 20), (100, 160), (1000, 1280))


@pytest.mark.parametrize(
    ("item_count", "width"),
    [
        (1, 20),
        (10, 20),
        (11, 160),
        (100, 160),
        (101, 1280),
        (1000, 1280),
        (1001, 1920),  # 1,281.28 is over 1,280.
        (1500, 1920),
        (1501, 2560),
        (7812, WIDTH_MAX),  # 9,999.36
        (7813, None),  # 10,000.64 is wider than any search.
        (20_000, None),
    ],
)
def test_a_number_of_items_takes_the_curve_of_the_next_larger_one(item_count: int, width: int) -> None:
    """Up to 1,000 items the next curve's width; beyond, in proportion, rounded up; then exact."""
    assert width == CALIBRATED.width_for(item_count)


def test_a_curve_without_a_width_means_exact() -> None:
    """Where no width held the target, those items are searched for exactly, and no others."""
    calibration = calibration_of((10, None), (100, 160), (1000, None))
    widths = [calibration.width_for(count) for count in (10, 11, 100, 101, 1000, 1001)]
    assert [None, 160, 160, None, None, None] == widths


def test_a_segment_that_was_not_calibrated_is_searched_exactly() -> None:
    """Without curves there is no width for anything."""
    assert [None, None] == [calibration_of().width_for(count) for count in (1, 10_000)]


@given(
    st.integers(1, 20_000),
    st.tuples(*[st.none() | st.sampled_from(LADDER)] * 3),
)
def test_every_width_is_a_step(item_count: int, widths: tuple[int | None, ...]) -> None:
    """Whatever was calibrated, the width is a step of the ladder or None."""
    calibration = calibration_of(*zip((10, 100, 1000), widths, strict=True))
    assert calibration.width_for(item_count) in {None, *LADDER}
