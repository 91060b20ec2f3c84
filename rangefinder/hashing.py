"""XXH3 (Yann Collet, https://xxhash.com): 64 bits for keys of texts, 128 for checksums of files.

Neither resists an attacker; both see every accident. Only this file knows the library.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash


class FileChecksum:
    """XXH3-128 of a file, fed in blocks; `xxhsum -H2` prints the same."""

    def __init__(self) -> None:
        self._state = xxhash.xxh3_128()

    def update(self, block: bytes | memoryview) -> None:
        self._state.update(block)

    def hexdigest(self) -> str:
        return self._state.hexdigest()


def hash_texts(texts: Iterable[bytes | memoryview], count: int) -> npt.NDArray[np.uint64]:
    """XXH3-64 of each text: uint64 of shape (count,)."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(text) for text in texts), dtype=np.uint64, count=count)
