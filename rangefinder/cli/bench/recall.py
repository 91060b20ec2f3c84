"""What a cluster finds of the true neighbours: asked over its own API, against its own exact search."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from rangefinder.answers import RetrievedBatch
from rangefinder.client import Client
from rangefinder.errors import InputRefused
from rangefinder.merge import NO_SCORE, Scores
from rangefinder.width import LADDER, step_for
from shard_server.calibration import recall_of_queries
from shard_server.scoring import Rows

# So few that an exact search of a million items ends within the longest deadline.
_ROWS_AT_ONCE = 32
_DEADLINE_S = 10.0


class Recall:
    """Recall at any width, against the truth of one set of queries."""

    def __init__(self, client: Client, queries: Rows, item_count: int, truth: Scores) -> None:
        self._client, self._queries = client, queries
        self._item_count, self._truth = item_count, truth

    @classmethod
    async def against_exact(cls, client: Client, queries: Rows, item_count: int) -> "Recall":
        """Ask for the truth first. Raises RangefinderError."""
        truth = await _scores(client, queries, item_count, width=0, exact=True)
        return cls(client, queries, item_count, truth)

    async def at(self, width: int) -> float:
        """Mean over the queries, counted by score because of ties. Raises RangefinderError."""
        found = await _scores(self._client, self._queries, self._item_count, width=width, exact=False)
        return float(recall_of_queries(found, self._truth).mean())

    async def narrowest(self, target: float) -> tuple[int, float]:
        """The narrowest width that holds the target, and its recall. Raises InputRefused."""
        for width in widths_from(self._item_count):
            recall = await self.at(width)
            if recall >= target:
                return width, recall
        raise InputRefused(f"no width holds a recall of {target:g}: the widest has {recall:.3f}")


def widths_from(item_count: int) -> list[int]:
    """Steps of the ladder that may hold so many items."""
    return [width for width in LADDER if width >= step_for(item_count)]


async def _scores(client: Client, queries: Rows, item_count: int, *, width: int, exact: bool) -> Scores:
    blocks = []
    for part in _parts(len(queries)):
        answer = await client.retrieve_batch(
            queries[part],
            item_count,
            search_width=width,
            exact=exact,
            minimum_coverage=1.0,
            deadline_s=_DEADLINE_S,
        )
        blocks.append(_block(answer, item_count))
    return np.concatenate(blocks)


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, count, _ROWS_AT_ONCE))


def _block(answer: RetrievedBatch, item_count: int) -> Scores:
    """Scores of each query in a row, padded at the end."""
    counts: npt.NDArray[np.int64] = answer.item_counts
    block = np.full((len(counts), item_count), NO_SCORE)
    block[np.arange(item_count) < counts[:, None]] = answer.scores
    return block
