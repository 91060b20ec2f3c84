"""Packed columns of parsed messages as arrays, without an object for each value.

On the wire a packed repeated field is the bytes of a little-endian array; a message whose only field it
is ends with them. Writing it again is one copy; reading it makes an object of every value.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from rangefinder.v1.types_pb2 import ItemIds, Vector

_PACKED_FIELD_1 = (
    b"\x0a"  # Field 1, length-delimited: https://protobuf.dev/programming-guides/encoding.
)


def floats_of(vector: Vector) -> npt.NDArray[np.float32]:
    """The values of an embedding: shape (values,)."""
    return _column(vector, vector.values, np.dtype("<f4"))


def vector_of(values: npt.NDArray[np.float32]) -> Vector:
    """The message of an embedding of shape (dimension,): the inverse of floats_of."""
    content = np.ascontiguousarray(values, "<f4").tobytes()
    return Vector.FromString(_PACKED_FIELD_1 + _varint(len(content)) + content)


def integers_of(ids: ItemIds) -> npt.NDArray[np.int64]:
    """The integer ids of a column: shape (ids,)."""
    return _column(ids, ids.integers, np.dtype("<i8"))


def _column(message: Message, values: Sequence[float], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    content, count = message.SerializeToString(), len(values)
    size = count * dtype.itemsize
    if len(content) == len(_PACKED_FIELD_1) + _varint_size(size) + size:
        return np.ndarray((count,), dtype, content, len(content) - size)
    return np.array(values, dtype)  # No value at all, or other fields beside them.


def _varint_size(value: int) -> int:
    """Bytes of a positive varint: seven bits in each."""
    return (value.bit_length() + 6) // 7


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last have the high bit set."""
    content = bytearray()
    while value >= 0x80:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)
