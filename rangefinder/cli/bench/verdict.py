"""One figure beside what it should be, and medians of what is known. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

NOTHING = "-"

Cell = str | float | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One figure beside what it should be."""

    what: str
    value: float
    bound: float
    is_at_most: bool = True

    @property
    def is_met(self) -> bool:
        return self.value <= self.bound if self.is_at_most else self.value >= self.bound

    def row(self) -> tuple[Cell, ...]:
        sign = "<=" if self.is_at_most else ">="
        return (self.what, self.value, f"{sign} {self.bound:g}", "yes" if self.is_met else "NO")


def median_of(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def cell(value: float | None) -> Cell:
    """As a table shows it."""
    return NOTHING if value is None else value
