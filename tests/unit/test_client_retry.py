"""What a client asks again, and how often it may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.client.retry import (
    MEMORY_S,
    RETRY_RATE_MIN,
    RETRY_SHARE,
    RetryBudget,
    pause_before_retry_s,
)
from rangefinder.edge.status import UnexpectedStatus, error_with_reason
from rangefinder.errors import Overloaded, RangefinderError

NOW_S = 1_000.0


def test_only_what_may_help_is_asked_again() -> None:
    """Of all reasons, those of a router that is not there, is moving or too busy; never a deadline
    that has passed, never gRPC's own RESOURCE_EXHAUSTED, never a refusal of the request itself."""
    errors = [error_with_reason(reason, "") for reason in RangefinderError.by_reason]
    asked_again = {e.reason for e in errors if e and pause_before_retry_s(e) is not None}
    expected = {"DRAINING", "MAP_CHANGED", "NOT_READY", "OVERLOADED", "REPLICA_UNAVAILABLE"}
    assert expected == asked_again
    assert pause_before_retry_s(UnexpectedStatus("RESOURCE_EXHAUSTED: too large")) is None


def test_an_overloaded_router_says_when() -> None:
    """OVERLOADED is asked again after as long as it says."""
    assert pytest.approx(0.03) == pause_before_retry_s(Overloaded("busy", 30))


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=300))
def test_retries_stay_under_a_fifth_of_the_requests(steps: list[tuple[float, bool]]) -> None:
    """Whatever the times, retries are at most a fifth of the requests, ten a second, and what a
    client at rest has: a hundred."""
    budget, now_s, requests, retries = RetryBudget(updated_s=NOW_S), NOW_S, 0, 0
    for after_s, is_request in steps:
        now_s += after_s
        if is_request:
            budget.record_request(now_s)
            requests += 1
        else:
            retries += budget.spend(now_s)
        allowed = RETRY_SHARE * requests + RETRY_RATE_MIN * (now_s - NOW_S + MEMORY_S)
        assert retries <= allowed + 1e-6


def test_a_busy_client_may_retry_all_that_it_loses_at_once() -> None:
    """At 1,000 requests a second, 1,000 at the same moment; two minutes later, a hundred."""
    budget = RetryBudget(updated_s=NOW_S)
    for number in range(20_000):
        budget.record_request(NOW_S + number / 1_000)
    lost_s = NOW_S + 20
    assert all(budget.spend(lost_s) for _ in range(1_000))
    assert 100 == sum(budget.spend(lost_s + 120) for _ in range(1_000))


def test_a_budget_that_is_spent_fills_up_again() -> None:
    """With nothing left, five requests at once pay for one more."""
    budget = RetryBudget(updated_s=NOW_S, tokens=0.0)
    outcomes = []
    for _ in range(10):
        budget.record_request(NOW_S)
        outcomes.append(budget.spend(NOW_S))
    assert 2 == sum(outcomes)
    assert outcomes[4] or outcomes[5]
