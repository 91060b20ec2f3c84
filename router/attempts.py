"""Who was asked for which shards of a batch, and what is still owed. Pure. The first answer wins."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """One message to a node: a first one, a hedge or a retry."""

    node: str
    shards: Sequence[str]
    sent_s: float
    ahead: int  # Messages under way to the node before it.


class Attempts:
    """The messages of one batch, by number. A node is asked at most once for a shard."""

    __slots__ = ("_by_number", "_missing", "_under_way")

    def __init__(self) -> None:
        self._by_number: dict[int, Attempt] = {}
        self._under_way: set[int] = set()
        self._missing: set[str] = set()  # Shards that were asked for and have no answer yet.

    def __len__(self) -> int:
        return len(self._by_number)

    def __getitem__(self, number: int) -> Attempt:
        return self._by_number[number]

    def add(self, node: str, shards: Sequence[str], now_s: float, ahead: int) -> int:
        """A message goes out; returns its number."""
        number = len(self._by_number)
        self._by_number[number] = Attempt(node, shards, now_s, ahead)
        self._under_way.add(number)
        self._missing.update(shards)
        return number

    def answered(self, number: int, shards: Iterable[str]) -> bool:
        """A node has answered for some shards; whether it is the first to do so for any of them."""
        self._under_way.discard(number)
        missing_count = len(self._missing)
        self._missing.difference_update(shards)
        return len(self._missing) < missing_count

    def give_up(self, number: int) -> list[str]:
        """A node will not answer, or need not; returns the shards that nobody is asked for any more."""
        self._under_way.discard(number)
        return [shard for shard in self.owed(number) if not self._is_expected(shard)]

    def owed(self, number: int) -> list[str]:
        """Shards of a message that nobody has answered."""
        return [shard for shard in self._by_number[number].shards if shard in self._missing]

    def last_asked(self, number: int) -> list[str]:
        """Shards that a message owes, and that nobody was asked for after it who may still answer."""
        later = [self._by_number[each].shards for each in self._under_way if each > number]
        return [name for name in self.owed(number) if not any(name in shards for shards in later)]

    def tried_for(self, shards: Collection[str]) -> list[str]:
        """Nodes that were asked for any of the shards, whatever became of it."""
        asked = self._by_number.values()
        return [each.node for each in asked if not set(shards).isdisjoint(each.shards)]

    @property
    def under_way(self) -> list[int]:
        return list(self._under_way)

    @property
    def lost(self) -> list[int]:
        """Messages under way to whose whole part others have answered."""
        return [each for each in self._under_way if not self.owed(each)]

    @property
    def is_over(self) -> bool:
        """Whether every shard is answered, or nobody is asked for it any more."""
        return not any(self._is_expected(shard) for shard in self._missing)

    def _is_expected(self, shard: str) -> bool:
        return any(shard in self._by_number[number].shards for number in self._under_way)
