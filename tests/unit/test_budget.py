"""What hedges and retries may cost."""

from hypothesis import given
from hypothesis import strategies as st

from router.budget import EXTRA_SHARE, HEDGE_SHARE, Budget

# A query or two are sent, some time after the last, and something is asked for.
steps = st.lists(
    st.tuples(st.floats(0.0, 2.0), st.integers(1, 64), st.sampled_from(("", "hedge", "retry", "both"))),
    max_size=200,
)


@given(steps)
def test_the_budget_is_never_exceeded(moves: list[tuple[float, int, str]]) -> None:
    """Over its life, whatever is asked for: hedges 5 % of the queries, hedges and retries 20 %.

    Beside them stand 20 retries that may be had from the start, and one message: a full bucket pays
    for any, and owes the rest.
    """
    budget, now_s, largest = Budget(0.0), 0.0, 0
    for after_s, count, wish in moves:
        now_s, largest = now_s + after_s, max(largest, count)
        budget.record_queries(now_s, count)
        if wish in ("hedge", "both"):
            budget.take_hedge(count)
        if wish in ("retry", "both"):
            budget.take_retry(count)
        assert budget.hedge_count <= HEDGE_SHARE * budget.query_count + largest
        extra = budget.hedge_count + budget.retry_count
        assert extra <= EXTRA_SHARE * budget.query_count + 20 + largest


@given(st.lists(st.sampled_from((True, False)), max_size=400))
def test_single_queries_owe_nothing(wishes: list[bool]) -> None:
    """Where every message is one query, hedges are 5 % at most from the very first on."""
    budget = Budget(0.0)
    for place, is_late in enumerate(wishes):
        budget.record_queries(place / 100, 1)
        if is_late:
            budget.take_hedge(1)
        assert budget.hedge_count <= HEDGE_SHARE * budget.query_count + 1e-9


@given(st.integers(1, 2_000), st.integers(1, 3_000))
def test_for_a_moment_hedges_are_a_tenth_at_most(rate: int, quiet: int) -> None:
    """However much was saved, of the queries of any second, or of any hundred, a tenth is hedged."""
    budget, now_s = Budget(0.0), 0.0
    for _ in range(quiet):
        now_s += 1 / rate
        budget.record_queries(now_s, 1)
    moment = max(rate, 100)
    for _ in range(moment):
        now_s += 1 / rate
        budget.record_queries(now_s, 1)
        budget.take_hedge(1)
    assert budget.hedge_count <= 2 * HEDGE_SHARE * moment


@given(st.integers(1, 500), st.integers(0, 2_000))
def test_of_ten_seconds_hedges_are_a_twentieth_at_most(rate: int, quiet: int) -> None:
    """However much was saved, and however much is late from then on."""
    budget, now_s = Budget(0.0), 0.0
    for place in range(quiet + 10 * max(rate, 100)):
        now_s += 1 / rate
        budget.record_queries(now_s, 1)
        if place >= quiet:
            budget.take_hedge(1)
    assert budget.hedge_count <= HEDGE_SHARE * 10 * max(rate, 100)


def test_a_moment_may_take_nearly_twice_the_share() -> None:
    """After a quiet while, more than nine in a hundred of the next second are hedged."""
    budget = Budget(0.0)
    for place in range(10_000):
        budget.record_queries(place / 1_000, 1)
    for place in range(1_000):
        budget.record_queries(10.0 + place / 1_000, 1)
        budget.take_hedge(1)
    assert 90 <= budget.hedge_count <= 95


def test_a_node_lost_after_the_start_costs_no_answer() -> None:
    """The very first queries can be tried again: nothing has been saved up by then."""
    budget = Budget(0.0)
    budget.record_queries(0.0, 8)
    assert [True] * 8 == [budget.take_retry(1) for _ in range(8)]
    assert 8 == budget.retry_count


def test_large_messages_are_hedged_too() -> None:
    """A message larger than the bucket goes out when that is full, and no other until it is paid."""
    budget, hedged = Budget(0.0), []
    for place in range(400):
        budget.record_queries(place / 5, 256)
        hedged.append(budget.take_hedge(256))
    assert 0.03 <= sum(hedged) / len(hedged) <= HEDGE_SHARE + 1 / len(hedged)


def test_retries_and_hedges_spend_from_one_budget() -> None:
    """What retries took is gone for hedges; what neither could have is counted."""
    budget = Budget(0.0)
    for place in range(1_000):
        budget.record_queries(place / 100, 1)
    while budget.take_retry(1):
        pass
    assert not budget.take_hedge(1)
    assert (0, 2) == (budget.hedge_count, budget.refused_count)
