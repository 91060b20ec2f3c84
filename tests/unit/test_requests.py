"""Public requests: each fault is refused with its class and the name of the field."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.errors import InvalidRequest, ReleaseNotServed, UnknownRelease, WrongDimension
from rangefinder.v1.recommendation_pb2 import RetrieveBatchRequest, RetrieveRequest
from rangefinder.v1.types_pb2 import ItemIds, Vector, VectorBlock
from rangefinder.width import LADDER
from router.batch import Group
from router.requests import (
    OBEYED_BATCH,
    OBEYED_RETRIEVE,
    Retrieval,
    batch_retrieval_of,
    retrieval_of,
)
from tests.kit.oracle import splitmix64
from tests.unit.asked import DEADLINE, MAP, batch, block, field_refused, single

TOO_LARGE = 1.9e19  # Its square is over what float32 holds.


def test_a_request_is_read_as_it_is() -> None:
    """Every field of a request that is set stands in the value made of it."""
    excluded = ItemIds(integers=[5, -7])
    found = single(
        query=Vector(values=[1, 0.5, -2]),
        item_count=7,
        search_width=33,
        excluded_items=excluded,
        minimum_coverage=0.75,
        release="r-1",
        request_id="é" * 64,
    )
    assert Group("r-1", 40, False) == found.block.group  # 33 rounded up to a step.
    assert [[1, 0.5, -2]] == found.block.queries.tolist()
    assert (7, 0.75, False) == (
        found.block.item_count,
        found.minimum_coverage,
        found.uses_default_width,
    )
    assert [[splitmix64(5), splitmix64(-7)]] == [keys.tolist() for keys in found.block.excluded]
    assert DEADLINE.with_reserve() == found.block.deadline


def test_defaults() -> None:
    """Unset, 100 items of the active release are asked for, at the default width."""
    for found in (single(), batch()):
        assert Group("r-1", 0, False) == found.block.group
        assert (100, 0.0, True) == (
            found.block.item_count,
            found.minimum_coverage,
            found.uses_default_width,
        )
        assert () == found.block.excluded
    assert Group("r-1", 0, True) == single(exact=True).block.group
    assert not single(exact=True).uses_default_width


def test_a_batch_is_read_row_by_row() -> None:
    """Rows are in order, with the exclusions of each beside it."""
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    found = batch(
        queries=VectorBlock(float32_le=values.tobytes(), count=2),
        excluded_items=[ItemIds(), ItemIds(integers=[1, 2])],
    )
    assert values.tolist() == found.block.queries.tolist()
    assert [0, 2] == [len(keys) for keys in found.block.excluded]
    assert 1_024 == len(batch(queries=block(1_024)).block.queries)


@pytest.mark.parametrize("ask", [single, batch])
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"item_count": -1}, "item_count"),
        ({"item_count": 10_001}, "item_count"),
        ({"search_width": -1}, "search_width"),
        ({"search_width": 99}, "search_width"),  # Narrower than the 100 items asked for.
        ({"search_width": 10_001}, "search_width"),
        ({"search_width": 200, "exact": True}, "search_width"),
        ({"minimum_coverage": math.nan}, "minimum_coverage"),
        ({"minimum_coverage": -1.0}, "minimum_coverage"),
        ({"minimum_coverage": 1.1}, "minimum_coverage"),
        ({"minimum_coverage": math.inf}, "minimum_coverage"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": "é" * 65}, "request_id"),
    ],
)
def test_values_out_of_range_are_refused(
    ask: Callable[..., Retrieval], fields: dict[str, Any], field: str
) -> None:
    """A value out of its range is refused by name, in a single request and in a batch."""
    assert field == field_refused(lambda: ask(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"item_count": 1},
        {"item_count": 10_000},
        {"item_count": 10, "search_width": 10},
        {"item_count": 10_000, "search_width": 10_000},
        {"minimum_coverage": 0.0},
        {"minimum_coverage": 1.0},
        {"request_id": "x" * 128},
    ],
)
def test_the_ends_of_the_ranges_are_served(fields: dict[str, Any]) -> None:
    """The first and the last value of each range are taken."""
    single(**fields)
    batch(**fields)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_widths_are_steps(item_count: int, width: int) -> None:
    """A width that is not under the items asked for becomes the next step of the ladder."""
    if width < item_count:
        assert "search_width" == field_refused(
            lambda: single(item_count=item_count, search_width=width)
        )
        return
    group = single(item_count=item_count, search_width=width).block.group
    assert min(step for step in LADDER if step >= width) == group.width


@pytest.mark.parametrize("values", [[], [1, 2], [1, 2, 3, 4], [0] * 10_000])
def test_a_query_of_another_dimension_is_refused(values: list[float]) -> None:
    """The dimension is that of the release that is asked for."""
    with pytest.raises(WrongDimension, match=f"{len(values)} values, but .* r-1 have 3"):
        single(query=Vector(values=values))
    with pytest.raises(WrongDimension, match=r"3 values, but .* r-2 have 4"):
        single(release="r-2")
    single(release="r-2", query=Vector(values=[1, 2, 3, 4]))


def test_a_request_without_a_query_is_refused() -> None:
    """Nothing is no embedding."""
    with pytest.raises(WrongDimension, match="0 values"):
        retrieval_of(RetrieveRequest(), MAP, DEADLINE)
    assert "queries.count" == field_refused(
        lambda: batch_retrieval_of(RetrieveBatchRequest(), MAP, DEADLINE)
    )


BAD_VALUES = [math.nan, math.inf, -math.inf, TOO_LARGE, -TOO_LARGE]


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize("place", [0, 2])
def test_a_query_that_cannot_be_scored_is_refused(value: float, place: int) -> None:
    """NaN, an infinity or a value too large to square in float32, anywhere, names the field."""
    values = [1.0] * 3
    values[place] = value
    assert "query.values" == field_refused(lambda: single(query=Vector(values=values)))


@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_row_that_cannot_be_scored_is_named(value: float) -> None:
    """In a batch the row is named, too."""
    rows = np.ones((4, 3), "<f4")
    rows[2, 1] = value
    queries = VectorBlock(float32_le=rows.tobytes(), count=4)
    with pytest.raises(InvalidRequest, match=r"^queries\.float32_le: row 2 holds NaN"):
        batch(queries=queries)


@pytest.mark.parametrize(
    ("queries", "field"),
    [
        (VectorBlock(float32_le=b"", count=0), "queries.count"),
        (block(1_025), "queries.count"),
        (VectorBlock(float32_le=block(2).float32_le, count=-2), "queries.count"),
        (VectorBlock(float32_le=b"", count=2), "queries.float32_le"),
        (VectorBlock(float32_le=block(2).float32_le[:-1], count=2), "queries.float32_le"),
        (VectorBlock(float32_le=block(3).float32_le, count=2), "queries.float32_le"),
        (VectorBlock(float32_le=block(2).float32_le + b"xy", count=2), "queries.float32_le"),
    ],
)
def test_a_block_that_does_not_fit_its_count_is_refused(queries: VectorBlock, field: str) -> None:
    """0 and 1,025 rows are refused, and bytes that are not those of so many rows."""
    assert field == field_refused(lambda: batch(queries=queries))


@pytest.mark.parametrize("dimension", [1, 2, 4, 300])
def test_a_block_of_another_dimension_is_refused(dimension: int) -> None:
    """Bytes that are whole rows of another dimension are WRONG_DIMENSION."""
    with pytest.raises(WrongDimension, match=f"^{dimension} values, but .* have 3"):
        batch(queries=block(2, dimension))


@pytest.mark.parametrize(("rows", "item_count"), [(101, 2_000), (1_024, 200), (21, 10_000)])
def test_a_batch_that_wants_too_much_is_refused(rows: int, item_count: int) -> None:
    """A batch may want 200,000 items in all."""
    assert "item_count" == field_refused(lambda: batch(queries=block(rows), item_count=item_count))


@pytest.mark.parametrize(("rows", "item_count"), [(100, 2_000), (1_000, 200), (20, 10_000)])
def test_a_batch_may_want_that_much(rows: int, item_count: int) -> None:
    """200,000 items are served."""
    assert 200_000 == batch(queries=block(rows), item_count=item_count).block.items_wanted


def test_an_unknown_release_is_refused() -> None:
    """A release that is not in the map, or not served, is refused as such."""
    for ask in (single, batch):
        with pytest.raises(UnknownRelease):
            ask(release="r-9")
        with pytest.raises(ReleaseNotServed):
            ask(release="r-3")


def test_every_field_is_obeyed_or_refused() -> None:
    """What is called obeyed are fields of the requests, so that none is misspelt."""
    assert OBEYED_RETRIEVE <= set(RetrieveRequest.DESCRIPTOR.fields_by_name)
    assert OBEYED_BATCH <= set(RetrieveBatchRequest.DESCRIPTOR.fields_by_name)
