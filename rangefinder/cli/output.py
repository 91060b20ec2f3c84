"""What commands print: tables for people, JSON for programs, progress on a terminal."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from rangefinder.answers import Certificate

_WIDTH = None if sys.stdout.isatty() else 120


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on standard output; numbers to the right."""
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(columns):
        is_number = bool(rows) and isinstance(rows[0][place], int | float)
        table.add_column(name, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    _console().print(table)


def print_line(text: str) -> None:
    """A line for people on standard output."""
    _console().print(text, soft_wrap=True)


def _console() -> Console:
    """Prints what it is given: ids and titles may hold what looks like markup or an emoji's name."""
    return Console(width=_WIDTH, highlight=False, markup=False, emoji=False)


def _cell(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def certificate_in_words(certificate: Certificate) -> str:
    """One sentence: what was searched, what was missed and why, and what else is poorer."""
    searched = (
        f"searched {certificate.item_count_searched:,} of {certificate.item_count:,} items"
        f" ({certificate.coverage:.1%}) of release {certificate.release!r}"
        f" under map epoch {certificate.map_epoch}"
    )
    if certificate.estimated_recall is not None:
        searched += f"; recall@10 is about {certificate.estimated_recall:.3f}"
    missed = [
        f"keys {missed.key_start:016x} to {missed.key_end:016x}"
        f" ({'?' if missed.item_count is None else f'{missed.item_count:,}'} items): {missed.reason}"
        for missed in certificate.missed_ranges
    ]
    poorer = [f"{each.stage}: {each.detail} [{each.reason}]" for each in certificate.degradations]
    return "; ".join(["; missed ".join([searched, *missed]), *poorer])


def certificate_as_values(certificate: Certificate) -> dict[str, Any]:
    """The certificate for JSON; keys are hexadecimal, as JSON readers round large integers."""
    return {
        "map_epoch": certificate.map_epoch,
        "release": certificate.release,
        "coverage": certificate.coverage,
        "item_count": certificate.item_count,
        "item_count_searched": certificate.item_count_searched,
        "estimated_recall": certificate.estimated_recall,
        "missed_ranges": [
            {
                "key_start": f"{missed.key_start:016x}",
                "key_end": f"{missed.key_end:016x}",
                "item_count": missed.item_count,
                "reason": missed.reason,
            }
            for missed in certificate.missed_ranges
        ],
        "degradations": [
            {"stage": each.stage, "reason": each.reason, "detail": each.detail}
            for each in certificate.degradations
        ],
        "stage_ms": dict(certificate.stage_ms),
    }


class ProgressBars:
    """One bar for each stage of long work; nothing where standard error is no terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._starts_s: dict[str, float] = {}

    def begin(self, stage: str, total: int) -> None:
        self._starts_s[stage] = time.monotonic()
        self._task = self._progress.add_task(stage, total=total)

    def advance(self, count: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, count)

    def reach(self, done: int) -> None:
        """Advance to so much, all in all."""
        if self._task is not None:
            self._progress.update(self._task, completed=done)

    def warn(self, text: str) -> None:
        """A line on standard error that stays there, above the bars."""
        self._progress.console.print(
            f"rangefinder: warning: {text}",
            style="bold yellow",
            soft_wrap=True,
            markup=False,
            emoji=False,
        )

    def seconds(self) -> dict[str, float]:
        """How long each stage took, up to the next one or to now."""
        ends_s = [*self._starts_s.values(), time.monotonic()][1:]
        pairs = zip(self._starts_s.items(), ends_s, strict=True)
        return {stage: end_s - start_s for (stage, start_s), end_s in pairs}


@contextmanager
def progress_bars() -> Iterator[ProgressBars]:
    """Bars on standard error."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield ProgressBars(progress)
