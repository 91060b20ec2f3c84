"""What an answer covers, counted from the map's ownership, never from the nodes dialled. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rangefinder.cluster_map import Shard


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What became of one shard in one search; a `missed_reason` means it was not searched."""

    item_count: int | None  # As counted by the replica that answered; None: it did not.
    missed_reason: str = ""
    probe_recall: float = 1.0


@dataclass(frozen=True, slots=True)
class Missed:
    """A shard that the answer does not cover."""

    shard: Shard
    item_count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """Items of all ranges, of those searched, and which were missed."""

    item_count: int
    item_count_searched: int
    missed: tuple[Missed, ...]
    probe_recall: float  # Of what was searched, weighed by items.

    @property
    def share(self) -> float:
        """In [0, 1]; 1 where no range was missed, also in an empty catalogue."""
        if not self.missed:
            return 1.0
        return self.item_count_searched / self.item_count if self.item_count else 0.0


def cover(
    shards: Iterable[Shard], results: Mapping[str, ShardResult], last_counts: Mapping[str, int]
) -> Coverage:
    """The coverage of one search. A missed range counts what it last reported, or the map says."""
    searched, weighed, missed = 0, 0.0, []
    for shard in shards:
        result = results[shard.name]
        if result.missed_reason or result.item_count is None:
            count = last_counts.get(shard.name, shard.item_count)
            missed.append(Missed(shard, count, result.missed_reason))
        else:
            searched += result.item_count
            weighed += result.item_count * result.probe_recall
    total = searched + sum(part.item_count for part in missed)
    return Coverage(total, searched, tuple(missed), weighed / searched if searched else 1.0)


def of_all(results: Sequence[Mapping[str, ShardResult]]) -> Mapping[str, ShardResult]:
    """Results of several searches as one: a range counts as searched if all of them searched it."""
    if len(results) == 1:
        return results[0]
    combined: dict[str, ShardResult] = {}
    for each in results:
        for name, result in each.items():
            kept = combined.get(name)
            if kept is None or (result.missed_reason and not kept.missed_reason):
                combined[name] = result
    return combined


def unsearched(shards: Iterable[Shard], last_counts: Mapping[str, int]) -> dict[str, ShardResult]:
    """Results of no search at all: no range was missed, for none was wanted."""
    return {shard.name: ShardResult(last_counts.get(shard.name, shard.item_count)) for shard in shards}
