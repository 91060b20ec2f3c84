"""Keys of ids, against reference implementations and vectors that were published elsewhere."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefinder.keys import IdKind, integers_of_keys, keys_of_integers, keys_of_texts
from tests.kit.oracle import splitmix64

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EXTREMES = [INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX - 1, INT64_MAX]
INTEGER_KINDS = [IdKind.INTEGER, IdKind.ORDERED]

# Steele, Lea, Flood's generator seeded with 1234567, as many publications of it list its output.
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]

id_columns = st.lists(st.integers(INT64_MIN, INT64_MAX), max_size=50)


def keys_of(ids: list[int], kind: IdKind) -> list[int]:
    return [int(key) for key in keys_of_integers(np.array(ids, np.int64), kind)]


@given(id_columns)
@example(EXTREMES)
def test_integer_keys_are_splitmix64(ids: list[int]) -> None:
    """The key of an integer id is the finalizer of splitmix64, for negative and extreme ids too."""
    assert [splitmix64(each) for each in ids] == keys_of(ids, IdKind.INTEGER)


def test_integer_keys_give_the_published_numbers() -> None:
    """The finalizer over multiples of the golden gamma is the published output of the generator."""
    states = [(1234567 + step * GOLDEN_GAMMA) % 2**64 for step in range(1, 6)]
    ids = [state - 2**64 if state > INT64_MAX else state for state in states]
    assert PUBLISHED == keys_of(ids, IdKind.INTEGER)


@pytest.mark.parametrize("kind", INTEGER_KINDS)
@given(ids=id_columns)
@example(ids=EXTREMES)
def test_keys_turn_back_into_ids(kind: IdKind, ids: list[int]) -> None:
    """integers_of_keys undoes keys_of_integers for every int64."""
    keys = keys_of_integers(np.array(ids, np.int64), kind)
    assert np.uint64 == keys.dtype
    assert ids == integers_of_keys(keys, kind).tolist()


@pytest.mark.parametrize("kind", INTEGER_KINDS)
@given(keys=st.lists(st.integers(0, 2**64 - 1), max_size=50))
@example(keys=[0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_every_key_stands_for_an_id(kind: IdKind, keys: list[int]) -> None:
    """Each uint64 is the key of the id that it turns into: the mapping is a bijection."""
    ids = integers_of_keys(np.array(keys, np.uint64), kind)
    assert np.int64 == ids.dtype
    assert keys == keys_of_integers(ids, kind).tolist()


@given(id_columns)
@example(EXTREMES)
def test_ordered_keys_keep_the_order_of_ids(ids: list[int]) -> None:
    """An ordered key is the id plus 2^63, so ranges of keys are ranges of ids."""
    assert [each + 2**63 for each in ids] == keys_of(ids, IdKind.ORDERED)


@pytest.mark.parametrize("kind", INTEGER_KINDS)
def test_columns_keep_their_shape(kind: IdKind) -> None:
    """Keys of a matrix of ids, contiguous or not, stand where the ids stood."""
    ids = np.arange(-6, 6).reshape(3, 4)
    by_row = [keys_of(row, kind) for row in ids.T.tolist()]
    assert by_row == keys_of_integers(ids.T.copy(), kind).tolist()
    assert ids[:, ::2].tolist() == integers_of_keys(keys_of_integers(ids, kind)[:, ::2], kind).tolist()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b"", 0x2D06800538D394C2),
        (b"a", 0xE6C632B61E964E1F),
        (b"abc", 0x78AF5F94892F3950),
    ],
)
def test_text_keys_are_xxh3(text: bytes, key: int) -> None:
    """The key of a text is XXH3-64 of its bytes with seed 0, as published."""
    assert [key, key] == keys_of_texts([text, memoryview(text)]).tolist()


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_text_keys_depend_on_their_text_alone(texts: list[bytes]) -> None:
    """A column of texts has the keys that its texts have one by one, as uint64."""
    keys = keys_of_texts(texts)
    assert np.uint64 == keys.dtype
    assert [int(keys_of_texts([text])[0]) for text in texts] == keys.tolist()


def test_only_texts_have_keys_that_do_not_turn_back() -> None:
    """`is_integer` says for which kinds a key turns back into an id."""
    assert [True, True, False] == [IdKind(kind).is_integer for kind in ("integer", "ordered", "text")]
