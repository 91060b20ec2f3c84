"""Columns read off serialised messages are those that protobuf itself reads."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.edge.columns import floats_of, integers_of, vector_of
from rangefinder.v1.types_pb2 import ItemIds, Vector

FLOATS = st.lists(st.floats(width=32, allow_nan=False), max_size=300)
INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=300)


@given(FLOATS)
def test_floats_are_those_of_the_message(values: list[float]) -> None:
    """Any length, none included, comes back as it was set; a message made of an array reads alike."""
    assert values == floats_of(Vector(values=values)).tolist()
    assert values == list(vector_of(np.array(values, np.float32)).values)


@given(INTEGERS)
def test_integers_are_those_of_the_message(values: list[int]) -> None:
    """Any int64, in any number, comes back as it was set."""
    assert values == integers_of(ItemIds(integers=values)).tolist()


@given(FLOATS)
def test_values_that_a_caller_did_not_pack_are_read_too(values: list[float]) -> None:
    """Parsers must take both forms of a repeated field: one field for each value reads alike."""
    content = b"".join(b"\x0d" + np.float32(value).tobytes() for value in values)
    assert values == floats_of(Vector.FromString(content)).tolist()


@given(INTEGERS, st.lists(st.text(max_size=5), max_size=3), st.booleans())
def test_other_fields_beside_a_column_change_nothing(
    values: list[int], texts: list[str], is_newer: bool
) -> None:
    """Texts, and a field that a newer sender added, are no part of the column."""
    content = ItemIds(integers=values, texts=texts).SerializeToString()
    newer = b"\xfa\x01\x03new" if is_newer else b""
    assert values == integers_of(ItemIds.FromString(content + newer)).tolist()
