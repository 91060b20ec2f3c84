"""Which router a user belongs to: rendezvous hashing. Pure.

The score of a router for a user is a hash of both; the user's routers are in the order of scores. So
every client, in whatever order it was given the addresses, comes to the same order; a router that
leaves moves its own users alone, evenly over the others; one that joins takes an even share of all.
"""

import hashlib
from collections.abc import Sequence

_SCORE_BYTES = 8
_END_OF_NAME = b"\0"  # So that no name and user look like another name and user.


class Affinity:
    """The order of routers for each user."""

    def __init__(self, names: Sequence[str]) -> None:
        # Hashed once here: a score then costs about 0.5 µs.
        self._begun = [
            hashlib.blake2b(name.encode() + _END_OF_NAME, digest_size=_SCORE_BYTES) for name in names
        ]

    def order(self, user_id: str) -> list[int]:
        """Places of the routers, the user's own first."""
        user, scores = user_id.encode(), []
        for begun in self._begun:
            hashed = begun.copy()
            hashed.update(user)
            scores.append(hashed.digest())
        return sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
