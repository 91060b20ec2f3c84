"""A slow, failing, silent or lost replica in simulated time, at half of the peak load, over many seeds.

Each of three nodes holds the shard; one has a fault from the first second on. A claim about a share or
a percentile is one about all seeds together, a claim about a bound holds in each.
"""

from collections.abc import Iterable
from functools import cache

import pytest

from router.budget import EXTRA_SHARE, HEDGE_SHARE
from tests.kit.simulated_cluster import Fault, Scene, SimulatedRouter, simulate

SEEDS = range(84)  # For each of six faults.
FAULTS = [fault for fault in Fault if fault is not Fault.NONE]
SEEN = [Fault.FAILING, Fault.FLAKY, Fault.BLACK_HOLE]  # Faults that lead to an ejection.

FAULT_S, SETTLED_S, END_S = 0.3, 3.3, 3.8
NODE = "node-0"


@cache
def runs(fault: Fault) -> list[SimulatedRouter]:
    """One run for each seed."""
    return [
        simulate(
            Scene(
                seed=seed,
                fault=fault,
                service_s=0.016,
                allowed_s=0.4,
                fault_from_s=FAULT_S,
                ends_s=END_S,
            )
        )
        for seed in SEEDS
    ]


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[int(share * len(ordered))]


def settled(fault: Fault) -> list[float]:
    """How long batches took from the third second of the fault on."""
    return [each.took_s for run in runs(fault) for each in run.outcomes if each.sent_s >= SETTLED_S]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_tail_stays_flat(fault: Fault) -> None:
    """From the third second on p99 is at most the healthy p95, the hedge delay and 10 ms."""
    healthy_s = percentile(settled(Fault.NONE), 0.95)
    delays_s = [each for run in runs(fault) for each in run.hedge_delays_s[-100:]]
    bound_s = healthy_s + percentile(delays_s, 0.5) + 0.01
    assert percentile(settled(fault), 0.99) <= bound_s


@pytest.mark.parametrize("fault", FAULTS)
def test_hardly_an_answer_is_lost(fault: Fault) -> None:
    """From the first moment of the fault on, less than one answer in a thousand misses a range."""
    whole = [each.is_whole for run in runs(fault) for each in run.outcomes if each.sent_s >= FAULT_S]
    assert whole.count(False) < 0.001 * len(whole)


@pytest.mark.parametrize("fault", Fault)
def test_the_budget_holds_in_every_run(fault: Fault) -> None:
    """Hedges: 5 % of the queries, 10 % of those of any second; with retries, 20 %."""
    for seed, run in zip(SEEDS, runs(fault), strict=True):
        budget = run.budget
        assert budget.hedge_count <= HEDGE_SHARE * budget.query_count, f"seed {seed}"
        extra = budget.hedge_count + budget.retry_count
        assert extra <= EXTRA_SHARE * budget.query_count, f"seed {seed}"
        for from_s in (0.0, 0.3, 0.5, 1.0, 1.5, 2.0, 2.5):
            sent = sum(from_s <= each.sent_s < from_s + 1.0 for each in run.outcomes)
            hedged = sum(from_s <= at_s < from_s + 1.0 for at_s in run.hedged_s)
            assert hedged <= 2 * HEDGE_SHARE * max(sent, 100), f"seed {seed} from {from_s}"


@pytest.mark.parametrize("fault", SEEN)
def test_who_fails_is_ejected_within_two_seconds(fault: Fault) -> None:
    """However the calls fall, a node that fails, fails often or keeps silent is out 2 s later."""
    for seed, run in zip(SEEDS, runs(fault), strict=True):
        assert run.ejected_s[NODE], f"seed {seed}"
        assert run.ejected_s[NODE][0] - FAULT_S < 2.0, f"seed {seed}"


@pytest.mark.parametrize("fault", Fault)
def test_nobody_else_is_ejected(fault: Fault) -> None:
    """Nodes that work stay in, whatever becomes of the third."""
    for seed, run in zip(SEEDS, runs(fault), strict=True):
        others = {name for name, times_s in run.ejected_s.items() if times_s} - {NODE}
        assert set() == others, f"seed {seed}"


def test_a_slow_node_is_asked_little() -> None:
    """A node that answers 200 ms later gets less than one message in fifty, and not none at all."""
    asked = [
        sum(at_s >= SETTLED_S for run in runs(Fault.SLOW) for at_s in run.nodes[name].asked)
        for name in run_names()
    ]
    assert 0 < asked[0] < 0.02 * sum(asked)


def run_names() -> list[str]:
    return ["node-0", "node-1", "node-2"]


@pytest.mark.parametrize("fault", SEEN)
def test_a_third_is_asked_where_two_are_of_no_use(fault: Fault) -> None:
    """Few queries, so that the budget lasts: not one answer is lost, from the first moment on."""
    for seed in SEEDS:
        run = simulate(
            Scene(
                seed=seed,
                fault=fault,
                fault_count=2,
                load=0.01,
                service_s=0.016,
                allowed_s=0.4,
                fault_from_s=FAULT_S,
                ends_s=END_S,
            )
        )
        assert all(each.is_whole for each in run.outcomes), f"seed {seed}"


@pytest.mark.parametrize("fault", FAULTS)
def test_who_works_again_comes_back_to_a_fair_share(fault: Fault) -> None:
    """A fault of 1.5 s: 9 s after it the node gets a third of the work again, give or take a fifth.

    Ejected twice by then, it is out for 3 s at most, and eased in over 5 s.
    """
    shares = []
    for seed in range(4):
        run = simulate(
            Scene(
                seed=seed,
                fault=fault,
                service_s=0.016,
                allowed_s=0.4,
                fault_from_s=0.5,
                fault_until_s=2.0,
                ends_s=13.0,
            )
        )
        asked = [sum(at_s >= 11.0 for at_s in run.nodes[name].asked) for name in run_names()]
        shares.append(asked[0] / sum(asked))
    assert 0.8 / 3 <= sum(shares) / len(shares) <= 1.2 / 3


@pytest.mark.parametrize("fault", [Fault.FAILING, Fault.FLAKY])
def test_where_no_other_is_left_a_failing_node_is_asked(fault: Fault) -> None:
    """A single replica is never given up while it answers: a flaky one answers four of ten."""
    run = simulate(Scene(seed=1, fault=fault, node_count=1, ends_s=3.0))
    whole = [each.is_whole for each in run.outcomes if each.sent_s >= 1.0]
    assert run.ejected_s[NODE]
    expected = 0.4 if fault is Fault.FLAKY else 0.0
    assert expected == pytest.approx(whole.count(True) / len(whole), abs=0.1)


def test_where_no_other_is_left_a_silent_node_is_not_waited_for() -> None:
    """Once a single replica is ejected for its silence, answers without it are there at once."""
    run = simulate(Scene(seed=1, fault=Fault.BLACK_HOLE, node_count=1, ends_s=3.0))
    late = [each.took_s for each in run.outcomes if each.sent_s >= 2.0]
    assert percentile(late, 0.95) == 0.0
