"""Batches that wait for company: for turns, not for time; a query that is alone never does."""

import pytest

from router.company import Company

USUAL_S = 0.01


def turns_waited(company: Company, counts: list[int], turn_s: float = 0.0) -> int:
    """How many turns a batch waited while so many blocks were there; the last count stays."""
    for turn in range(1_000):
        count = counts[min(turn, len(counts) - 1)]
        if not company.is_expected(count, turn * turn_s, USUAL_S):
            company.record_batch(count)
            return turn
    raise AssertionError("it waits for ever")


def test_a_query_that_is_alone_never_waits() -> None:
    company = Company()
    assert [0] * 5 == [turns_waited(company, [1]) for _ in range(5)]


def test_after_a_large_batch_the_next_one_is_waited_for() -> None:
    """Until it is larger."""
    company = Company()
    company.record_batch(20)
    assert 3 == turns_waited(company, [2, 9, 23, 24, 30])


def test_nobody_is_waited_for_who_does_not_come() -> None:
    """For some turns, a few times; then callers have gone, and the next query is alone."""
    company = Company()
    company.record_batch(20)
    waited = [turns_waited(company, [1]) for _ in range(6)]
    assert all(0 < turns < 20 for turns in waited[:4])
    assert [0, 0] == waited[4:]


def test_turns_count_from_the_last_one_that_came() -> None:
    company = Company()
    company.record_batch(20)
    waited = turns_waited(company, [1])
    company.record_batch(20)
    assert 10 + waited == turns_waited(company, [1] * 10 + [2])


@pytest.mark.parametrize("slowly", [[1, 1, 1, 2, 2, 2, 3, 3, 3, 4], list(range(1, 1_000))])
def test_it_waits_for_half_of_what_a_batch_takes_at_most(slowly: list[int]) -> None:
    company = Company()
    company.record_batch(1_000)
    assert 5 == turns_waited(company, slowly, turn_s=USUAL_S / 10)


def test_what_left_the_queue_begins_anew() -> None:
    """All who waited were told that their time is up: the next one waits from then on."""
    company = Company()
    company.record_batch(20)
    assert company.is_expected(1, 0.0, USUAL_S)
    assert not company.is_expected(0, 1.0, USUAL_S)
    assert company.is_expected(1, 2.0, USUAL_S)
