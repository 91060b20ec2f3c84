"""Ids and the uint64 keys that stand for them inside the cluster.

    integer   splitmix64's finalizer (Steele, Lea, Flood, "Fast splittable pseudorandom number
              generators", OOPSLA 2014): a bijection, so keys spread evenly and turn back into ids
    ordered   id + 2^63: order-preserving, so ranges of keys are ranges of ids
    text      XXH3-64 of the UTF-8 bytes: not reversible, so the text is kept beside the key

Everything works on whole columns. Pure.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rangefinder.hashing import hash_texts

Keys = npt.NDArray[np.uint64]
IntegerIds = npt.NDArray[np.int64]

KEY_COUNT = 2**64


class Texts(Protocol):
    """A sized column of UTF-8 texts; it need not hold them as objects."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes | memoryview]: ...


TEXT_BYTES_MAX = 256

_SIGN = np.uint64(1 << 63)
# Multipliers of the finalizer, and their inverses modulo 2^64.
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
# Shifts, made once: what an operation on a short column costs is its scalars.
_27, _30, _31, _54, _60, _62 = (np.uint64(shift) for shift in (27, 30, 31, 54, 60, 62))
_UNMIX_1, _UNMIX_2 = np.uint64(0x96DE1B173F119089), np.uint64(0x319642B2D24D8EC3)


class IdKind(StrEnum):
    """What the ids of a cluster are; the value is what `--id-kind` takes."""

    INTEGER = "integer"
    ORDERED = "ordered"
    TEXT = "text"

    @property
    def is_integer(self) -> bool:
        return self is not IdKind.TEXT


def keys_of_integers(ids: IntegerIds, kind: IdKind) -> Keys:
    """Keys of int64 ids; same shape."""
    bits = ids.astype(np.int64, copy=False).view(np.uint64)
    return _mix(bits) if kind is IdKind.INTEGER else bits ^ _SIGN


def integers_of_keys(keys: Keys, kind: IdKind) -> IntegerIds:
    """The int64 ids that have these keys; same shape. Inverse of keys_of_integers."""
    bits = _unmix(keys) if kind is IdKind.INTEGER else keys ^ _SIGN
    return bits.view(np.int64)


def keys_of_texts(texts: Texts) -> Keys:
    """Keys of UTF-8 texts; shape (len(texts),)."""
    return hash_texts(texts, len(texts))


def _mix(bits: Keys) -> Keys:
    bits = (bits ^ (bits >> _30)) * _MIX_1
    bits = (bits ^ (bits >> _27)) * _MIX_2
    mixed: Keys = bits ^ (bits >> _31)
    return mixed


def _unmix(bits: Keys) -> Keys:
    """Each xor-shift is undone by repeating it until the shifts exceed 64 bits."""
    bits = (bits ^ (bits >> _31) ^ (bits >> _62)) * _UNMIX_2
    bits = (bits ^ (bits >> _27) ^ (bits >> _54)) * _UNMIX_1
    unmixed: Keys = bits ^ (bits >> _30) ^ (bits >> _60)
    return unmixed
