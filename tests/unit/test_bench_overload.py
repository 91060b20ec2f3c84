"""What is made of an overload: when all is as before, and what is judged."""

from dataclasses import replace

import pytest

from rangefinder.cli.bench.overload import back_after_s
from rangefinder.cli.bench.overload_report import overload_verdicts
from rangefinder.cli.bench.schedule import Bin
from tests.unit.bench_figures import figures, overload

GOODPUT = "overload: goodput / peak"
REFUSALS = "overload: p99 of refusals - p50 of an empty call at that load, ms"
BACK = "overload: seconds until all is as before"
EXTRA = "overload: hedges and retries / queries"


def half_seconds(p99_ms: list[float | None], failed: tuple[int, ...] = ()) -> list[Bin]:
    return [
        Bin(
            start_s=place / 2,
            requests=100,
            failed=int(place in failed),
            p50_ms=each,
            p99_ms=each,
            coverage=1.0,
        )
        for place, each in enumerate(p99_ms)
    ]


@pytest.mark.parametrize(
    ("seen", "back_s"),
    [
        (half_seconds([5, 4, 90, 90, 9, 4, 4]), 0.0),  # Twice the worst of before is as before.
        (half_seconds([5, 4, 90, 90, 90, 11, 4]), 1.0),
        (half_seconds([5, 4, 90, 90, 4, 4, 4], failed=(5,)), 1.0),
        (half_seconds([5, 4, 90, 90, 4, None, 4]), 1.0),
        (half_seconds([5, 4, 90, 90, 4, 4, 11]), None),
        (half_seconds([5, 4, 90, 90]), None),
    ],
)
def test_all_is_as_before_from_the_last_bad_moment_on(seen: list[Bin], back_s: float | None) -> None:
    """A moment is bad that has a failure, no answer, or twice the p99 of before; the flood is from the
    first second to the second. Where the last moment is bad, nobody knows."""
    assert back_s == back_after_s(seen, 1.0, 2.0)


def test_an_overload_is_judged_by_its_medians() -> None:
    """Goodput against the peak, the word that refuses against an empty call, what follows, and extra
    queries; in each case a bad run of three does not count, two do."""
    bad = {
        GOODPUT: overload(0, goodput=899),
        REFUSALS: overload(0, refused_p50=2.1),
        BACK: replace(overload(0), back_after_s=None),
        EXTRA: overload(0, hedges=0.195),
    }
    for what, each in bad.items():
        missed = overload_verdicts(replace(figures(), overloads=[each, overload(1), each]))
        assert [what] == [verdict.what for verdict in missed if not verdict.is_met]
        passed = overload_verdicts(replace(figures(), overloads=[each, overload(1), overload(2)]))
        assert all(verdict.is_met for verdict in passed)
