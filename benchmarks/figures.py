"""What a benchmark prints and keeps: measurements beside what they should be."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.datasets import ROOT
from rangefinder.cli.output import print_table

RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement, and what it should be."""

    what: str
    value: float
    target: str
    is_met: bool


def at_least(what: str, value: float, bound: float) -> Figure:
    return Figure(what=what, value=value, target=f">= {bound:g}", is_met=value >= bound)


def at_most(what: str, value: float, bound: float) -> Figure:
    return Figure(what=what, value=value, target=f"<= {bound:g}", is_met=value <= bound)


def report(title: str, figures: Sequence[Figure], file: str) -> None:
    """Print a table, and write benchmarks/results/<file>."""
    print_table(
        title,
        ("measured", "value", "target", "met"),
        [(each.what, each.value, each.target, "yes" if each.is_met else "NO") for each in figures],
    )
    path: Path = RESULTS / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(each) for each in figures], indent=2), encoding="utf-8")


def say(text: str) -> None:
    """Progress, on standard error."""
    sys.stderr.write(f"bench: {text}\n")
