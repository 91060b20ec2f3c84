"""What a trial's figures are made into: shares, verdicts, a table."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from rangefinder.cli.bench.fault_report import fault_verdicts, show_faults
from rangefinder.cli.bench.trials import Fault, Sent
from tests.unit.bench_figures import fault, figures


def met(faults: Sequence[Fault]) -> dict[str, bool]:
    """Whether each target is, by the last words of what it says."""
    verdicts = fault_verdicts(replace(figures(), faults=list(faults)))
    return {each.what: each.is_met for each in verdicts}


SLOW_P99 = "slow, from its third second on: p99 - healthy p95 - hedge delay, ms"
SLOW_HEDGES = "slow, from its third second on: hedges / queries"


@pytest.mark.parametrize(
    ("settled_p50", "hedges", "missed"),
    [(3.0, 0.04, []), (4.9, 0.04, [SLOW_P99]), (3.0, 0.06, [SLOW_HEDGES])],
)
def test_a_slow_node_is_judged_by_what_is_usual(
    settled_p50: float, hedges: float, missed: list[str]
) -> None:
    """p99 (three times p50 here) may be 10 ms over the healthy p95 (2.5 ms) and the hedge delay (2 ms);
    the median of the runs counts, so one bad run of three does not."""
    bad = [fault("slow", run, settled_p50=settled_p50, hedges=hedges) for run in (0, 1)]
    assert missed == [what for what, is_met in met([*bad, fault("slow", 2)]).items() if not is_met]
    assert all(met([bad[0], fault("slow", 1), fault("slow", 2)]).values())


def test_one_failed_request_is_too_many() -> None:
    """Of a node that is slow or dead; of a black hole one in a thousand may fail."""
    failed = {kind: replace(fault(kind, 0), failed=1) for kind in ("slow", "kill", "stop")}
    for kind, each in failed.items():
        assert not met([each, fault(kind, 1)])[f"{kind}: failed requests"]
    assert met([replace(fault("blackhole", 0), failed=1)])["blackhole: failed / requests"]
    assert not met([replace(fault("blackhole", 0), failed=2)])["blackhole: failed / requests"]


def test_a_black_hole_is_to_be_left_out_soon() -> None:
    """In two seconds; where nobody saw it happen, it was not soon."""
    what = "blackhole: seconds until the node is left out"
    assert met([replace(fault("blackhole", 0), left_out_after_s=1.9)])[what]
    assert not met([replace(fault("blackhole", 0), left_out_after_s=2.1)])[what]
    assert not met([replace(fault("blackhole", 0), left_out_after_s=None)])[what]


def test_shares_are_of_first_queries() -> None:
    """Hedges and retries are counted in queries, as what they are added to."""
    sent = Sent(first=1_200, hedge=70, retry=30).since(Sent(first=200, hedge=20, retry=10))
    assert (0.05, 0.02, 0.07) == (sent.hedge_share, sent.retry_share, sent.extra_share)
    (before, *_) = fault("slow", 0).spans
    assert (200 + 8 + 2) / 100 == before.attempts
    assert replace(before, sent=None).attempts is None


def test_each_part_of_a_fault_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    """With failures by reason, and attempts beside them."""
    failed = replace(fault("kill", 0), failed=2, failures={"DEADLINE_SPENT": 2})
    show_faults(replace(figures(), faults=[failed, fault("kill", 1)]))
    text = capsys.readouterr().out
    parts = ["before", "its first seconds", "from its third second on", "after"]
    rows = text[text.index("when") :]
    assert parts == sorted(parts, key=rows.index)
    assert "2,000 requests" in text and "2 failed {'DEADLINE_SPENT': 2}" in text
    assert "hedged after 2.0 ms, left out after 400.0 ms" in text
