"""Whether a batch waits for company: for turns of the loop, not for a timer. Pure.

Callers that are answered together ask again together, but a server is told of their calls one by one,
a turn of its loop or two for each. A batch sent for the first of them is soon back, for the next one:
small batches bring forth small batches, at more work for a query. So where batches were larger lately,
the next one waits while the loop turns, until it is larger still, or nobody came for some turns, or it
has waited for half as long as a batch takes. A query that is alone is sent at once.
"""

_GROWTH = 1.2
_USUAL_SHARE = 0.5

# Turns without anything to do are short. With fewer batches stay smaller, more make them no larger
# (python -m benchmarks.naive).
_TURNS_MAX = 16


class Company:
    """Those who wait for the next batch, and those who may be about to join them."""

    def __init__(self) -> None:
        self._usual_count = 1  # Blocks in a batch, lately.
        self._seen_count = self._turns = 0
        self._began_s = 0.0

    def is_expected(self, count: int, now_s: float, usual_s: float) -> bool:
        """Whether `count` blocks should wait for more: asked once a turn; a batch takes usual_s."""
        if not self._seen_count or not count:
            self._began_s, self._seen_count, self._turns = now_s, 0, 0
        if count > self._seen_count:
            self._seen_count, self._turns = count, 0
        self._turns += 1
        is_small = 0 < count < _GROWTH * self._usual_count and self._usual_count > 1
        has_time = now_s - self._began_s < _USUAL_SHARE * usual_s
        return is_small and has_time and self._turns <= _TURNS_MAX

    def record_batch(self, count: int) -> None:
        """So many left in one batch."""
        self._usual_count = max(count, self._usual_count // 2)
        self._seen_count = self._turns = 0
