"""What `rangefinder eval` prints: one table and what stands behind it, or the same as JSON."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rangefinder.cli.eval_asking import Tally
from rangefinder.cli.lost_node import KnownNode
from rangefinder.cli.output import print_json, print_line, print_table
from training.evaluation import Difference, HeldOut, means_of
from training.metrics import RESAMPLES, Quality

POPULARITY, RETRIEVAL, PIPELINE = "popularity", "retrieval alone", "whole pipeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system, judged."""

    name: str
    quality: Quality
    difference: Difference | None = None  # Of its NDCG to that of retrieval alone.
    tally: Tally | None = None  # None: nothing was asked.
    percentiles_ms: tuple[float, float] | None = None  # p50 and p99.


@dataclass(frozen=True, slots=True, kw_only=True)
class LostNode:
    """A node that was killed, and what was answered between its death and the measurement."""

    node: KnownNode
    dying: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that was measured."""

    release: str
    test: str
    item_count: int
    held: HeldOut
    rows: Sequence[Row]
    index_recall: float | None  # None: not to be had while ranges are missing.
    lost: LostNode | None

    @property
    def failed(self) -> int:
        """Requests without an answer, of all that were made."""
        tallies = [row.tally for row in self.rows] + [self.lost.dying if self.lost else None]
        return sum(tally.failed for tally in tallies if tally is not None)


def show(report: Report, as_json: bool) -> None:
    """Print it."""
    if as_json:
        print_json(_as_values(report))
        return
    k = report.item_count
    columns = (
        *("", f"recall@{k}", f"NDCG@{k}", f"hit rate\n@{k}", f"NDCG@{k}\nagainst retrieval"),
        *("coverage", "p50 ms", "p99 ms", "failed"),
    )
    title = f"release {report.release} on {report.test}: {len(report.held):,} users, lists of {k}"
    print_table(title, columns, [_cells(row) for row in report.rows])
    for line in _lines(report):
        print_line(line)


def _cells(row: Row) -> tuple[str, ...]:
    quality = tuple(f"{mean:.4f}" for mean in means_of(row.quality))
    times = (
        ("-", "-") if row.percentiles_ms is None else tuple(f"{ms:.1f}" for ms in row.percentiles_ms)
    )
    tally = row.tally
    answered = ("-", "0") if tally is None else (_coverage(tally), f"{tally.failed:,}")
    return (row.name, *quality, _percent(row.difference), answered[0], *times, answered[1])


def _percent(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    mean, low, high = difference.percent
    return f"{mean:+.1f} % [{low:+.1f}, {high:+.1f}]"


def _coverage(tally: Tally) -> str:
    """Of every answer; the least and the most where they differ."""
    if not tally.coverages:
        return "-"
    least, most = min(tally.coverages), max(tally.coverages)
    return f"{least:.4f}" if least == most else f"{least:.4f} to {most:.4f}"


def _lines(report: Report) -> Iterator[str]:
    """What the table rests on, and what it does not show."""
    held, k = report.held, report.item_count
    yield (
        "What the release has of a user is left out of every list. Recall, NDCG and hit rate as in the"
        " LightGCN paper."
    )
    if held.unknown_users:
        yield (
            f"{held.unknown_users:,} users are unknown to the release: they count, and get popular"
            " items in every row."
        )
    if held.unknown_items:
        yield f"{held.unknown_items:,} test items are unknown to the release: they count as missed."
    if held.known_pairs:
        yield f"{held.known_pairs:,} test pairs are in the release's histories: left out of both sides."
    for row in report.rows:
        if row.name == PIPELINE and row.difference is not None:
            yield (
                f"{row.name} - {RETRIEVAL}: NDCG@{k} {row.difference.mean:+.4f}"
                f" [{row.difference.low:+.4f}, {row.difference.high:+.4f}], paired bootstrap over"
                f" users, {RESAMPLES:,} resamples."
            )
    recall = (
        "not measured: ranges are missing"
        if report.index_recall is None
        else f"{report.index_recall:.4f}"
    )
    yield f"Index recall@10 at width 0 against exact searches, with users' embeddings: {recall}."
    if report.lost is not None:
        yield _of_the_lost(report.lost)
    for row in report.rows:
        yield from _of_the_answers(row)


def _of_the_lost(lost: LostNode) -> str:
    return (
        f"{lost.node.name} was killed; by the map {lost.node.coverage_without:.4f} of the items are on"
        f" other nodes. Until the router knew, {lost.dying.answers + lost.dying.failed:,} requests were"
        f" made, of which {lost.dying.failed:,} failed{_counted(lost.dying.failures)}."
    )


def _of_the_answers(row: Row) -> Iterator[str]:
    if row.tally is None:
        return
    if row.tally.failures:
        yield f"{row.name}: {row.tally.failed:,} failed{_counted(row.tally.failures)}."
    if row.tally.degradations:
        yield f"{row.name}: poorer answers{_counted(row.tally.degradations)}."
    if unranked := row.tally.rankers.get("", 0):
        yield f"{row.name}: {unranked:,} of {row.tally.answers:,} answers were not ranked."


def _counted(counts: Counter[str]) -> str:
    parts = ", ".join(f"{what} {count:,}" for what, count in counts.most_common())
    return f" ({parts})" if parts else ""


def _as_values(report: Report) -> dict[str, Any]:
    held = report.held
    return {
        "release": report.release,
        "test": report.test,
        "item_count": report.item_count,
        "users": len(held),
        "unknown_users": held.unknown_users,
        "unknown_items": held.unknown_items,
        "known_pairs": held.known_pairs,
        "index_recall_at_10": report.index_recall,
        "failed": report.failed,
        "rows": [_row_as_values(row) for row in report.rows],
        "lost_node": None
        if report.lost is None
        else {
            "name": report.lost.node.name,
            "coverage_by_map": report.lost.node.coverage_without,
            "dying": _tally_as_values(report.lost.dying),
        },
    }


def _row_as_values(row: Row) -> dict[str, Any]:
    recall, ndcg, hit_rate = means_of(row.quality)
    p50, p99 = row.percentiles_ms or (None, None)
    values: dict[str, Any] = {"name": row.name, "recall": recall, "ndcg": ndcg, "hit_rate": hit_rate}
    values |= {"p50_ms": p50, "p99_ms": p99}
    if row.difference is not None:
        mean, low, high = row.difference.mean, row.difference.low, row.difference.high
        values["ndcg_difference"] = {"mean": mean, "low": low, "high": high}
        values["ndcg_difference_percent"] = dict(
            zip(("mean", "low", "high"), row.difference.percent, strict=True)
        )
    return values | ({} if row.tally is None else _tally_as_values(row.tally))


def _tally_as_values(tally: Tally) -> dict[str, Any]:
    return {
        "answers": tally.answers,
        "failures": dict(tally.failures),
        "degradations": dict(tally.degradations),
        "rankers": dict(tally.rankers),
        "coverage_least": min(tally.coverages, default=None),
        "coverage_most": max(tally.coverages, default=None),
    }
