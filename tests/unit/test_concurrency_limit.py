"""The limit on latency, and the line before it, through an overload in simulated time."""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.concurrency_limit import (
    RETRY_AFTER_S_MAX,
    RETRY_AFTER_S_MIN,
    ConcurrencyLimit,
    Line,
    Place,
)

LIMIT_MIN, LIMIT_MAX = 4, 500
TOLERATED_S = 0.05
SERVICE_S, ALLOWED_S = 0.01, 0.2
PEAK = 2 / SERVICE_S  # Calls per second, of two workers.

# Overload begins, ends, and what comes after it.
FROM_S, UNTIL_S, END_S = 1.0, 6.0, 10.0


def limit_at(now_s: float) -> ConcurrencyLimit:
    return ConcurrencyLimit(now_s, limit_min=LIMIT_MIN, limit_max=LIMIT_MAX, tolerated_s=TOLERATED_S)


@dataclass(slots=True)
class SimulatedServer:
    """Two workers behind a line; everything that runs at once waits for a worker in turn.

    A call whose time is up ends, and its worker goes on with it for nothing.
    """

    chance: random.Random
    line: Line[tuple[float, float]] = field(default_factory=lambda: Line(limit_at(0.0)))
    free_s: list[float] = field(default_factory=lambda: [0.0, 0.0])
    allowed_s: float = ALLOWED_S
    service_s: float = SERVICE_S
    ends: list[tuple[float, float, float, bool]] = field(
        default_factory=list
    )  # End, arrival, deadline, whether it is answered.
    good_s: list[tuple[float, float]] = field(default_factory=list)  # Arrival, how long it took.
    refused_s: list[float] = field(default_factory=list)
    began_late: int = 0

    def arrive(self, now_s: float) -> None:
        self.run_until(now_s)
        call = (now_s, now_s + self.allowed_s)
        place = self.line.enter(now_s, call[1], call)
        if place is Place.RUNS:
            self._begin(now_s, call)
        elif place is Place.REFUSED:
            self.refused_s.append(now_s)

    def run_until(self, end_s: float) -> None:
        while self.ends and self.ends[0][0] <= end_s:
            now_s, arrived_s, deadline_s, is_answered = heapq.heappop(self.ends)
            if is_answered:
                self.good_s.append((arrived_s, now_s - arrived_s))
            begun, _ = self.line.leave(now_s, arrived_s, deadline_s)
            for call in begun:
                self._begin(now_s, call)

    def _begin(self, now_s: float, call: tuple[float, float]) -> None:
        self.began_late += now_s > call[1]
        worker = self.free_s.index(min(self.free_s))
        began_s = max(self.free_s[worker], now_s)
        done_s = self.free_s[worker] = began_s + self.service_s * self.chance.uniform(0.5, 1.5)
        heapq.heappush(self.ends, (min(done_s, call[1]), *call, done_s <= call[1]))


def arrivals(chance: random.Random, phases: list[tuple[float, float]]) -> Iterator[float]:
    """Poisson arrivals; each phase is its end and its rate."""
    now_s = 0.0
    for end_s, rate in phases:
        while (now_s := now_s + chance.expovariate(rate)) < end_s:
            yield now_s
        now_s = end_s


def overloaded(seed: int) -> SimulatedServer:
    """Half of the peak, three times the peak, half of the peak."""
    chance = random.Random(seed)
    server = SimulatedServer(chance)
    for at_s in arrivals(chance, [(FROM_S, PEAK / 2), (UNTIL_S, 3 * PEAK), (END_S, PEAK / 2)]):
        server.arrive(at_s)
    server.run_until(END_S + 1.0)
    return server


def test_goodput_holds_through_an_overload() -> None:
    """At three times the peak 90 % of the peak are answered in time; 4 s later all is as before."""
    for seed in range(60):
        server = overloaded(seed)
        good = sum(FROM_S <= arrived_s < UNTIL_S for arrived_s, _ in server.good_s)
        assert good >= 0.9 * PEAK * (UNTIL_S - FROM_S), f"seed {seed}"
        assert not [at_s for at_s in server.refused_s if at_s >= UNTIL_S + 1.0], f"seed {seed}"
        after = [took_s for at_s, took_s in server.good_s if at_s >= END_S - 2.0]
        before = [took_s for at_s, took_s in server.good_s if at_s < FROM_S]
        assert sum(after) / len(after) < 1.5 * sum(before) / len(before), f"seed {seed}"
        assert 0 == server.began_late, f"seed {seed}"


@pytest.mark.parametrize("allowed_s", [0.2, 1.0])
def test_a_server_that_slows_down_is_not_lost(allowed_s: float) -> None:
    """Refusals and those who ask take processor time, so a call takes half as long again while three
    times the peak is asked for: of what is left of the peak, 90 % are answered in time. Those that
    were cut off ended often, and must not look like room for more."""
    for seed in range(20):
        chance = random.Random(seed)
        server = SimulatedServer(chance, allowed_s=allowed_s)
        for at_s in arrivals(chance, [(1.0, PEAK / 2), (11.0, 3 * PEAK)]):
            server.service_s = SERVICE_S * (1.5 if at_s >= 1.0 else 1.0)
            server.arrive(at_s)
        good = sum(3.0 <= arrived_s < 11.0 - allowed_s for arrived_s, _ in server.good_s)
        assert good >= 0.9 * PEAK / 1.5 * (8.0 - allowed_s), f"seed {seed}"


def test_a_long_overload_does_not_raise_the_limit() -> None:
    """After a minute of three times the peak answers still come in half of their time."""
    chance = random.Random(1)
    server = SimulatedServer(chance)
    for at_s in arrivals(chance, [(1.0, PEAK / 2), (61.0, 3 * PEAK)]):
        server.arrive(at_s)
    late = [took_s for at_s, took_s in server.good_s if at_s >= 50.0]
    assert len(late) > 0.9 * PEAK * 10.0
    assert sum(late) / len(late) < ALLOWED_S / 2


@given(st.lists(st.tuples(st.floats(0.0, 0.5), st.floats(1e-4, 20.0), st.integers(0, 2_000))))
def test_the_limit_stays_within_its_bounds(calls: list[tuple[float, float, int]]) -> None:
    """Whatever comes, the limit and the hint when to come back do."""
    now_s, limit = 0.0, limit_at(0.0)
    for after_s, took_s, under_way in calls:
        now_s += after_s
        limit.record(now_s, took_s, under_way)
        assert LIMIT_MIN <= limit.limit <= LIMIT_MAX
        assert RETRY_AFTER_S_MIN <= limit.retry_after_s <= RETRY_AFTER_S_MAX


@pytest.mark.parametrize(("took_s", "under_way"), [(0.001, 1), (5.0, 1), (0.001, 7)])
def test_a_limit_that_does_not_bind_stays(took_s: float, under_way: int) -> None:
    """Little load neither raises nor lowers the limit, be answers quick, or slow for other reasons."""
    limit = limit_at(0.0)
    before = limit.limit
    for place in range(3_000):
        limit.record(place * 0.01, took_s, under_way)
    assert before == limit.limit


def test_a_limit_that_binds_grows_while_answers_are_quick() -> None:
    """A server that could do more is given more: from 16 to 200 within ten seconds."""
    limit = limit_at(0.0)
    for place in range(1_000):
        limit.record(place * 0.01, 0.01, limit.limit)
    assert limit.limit > 200


def test_a_slow_kind_of_work_is_not_taken_for_overload() -> None:
    """Calls that always take a second keep their limit: it follows what is usual for them."""
    limit = limit_at(0.0)
    for place in range(2_000):
        limit.record(place * 0.02, 1.0, limit.limit)
    assert limit.limit >= 4 * LIMIT_MIN


@given(st.lists(st.tuples(st.floats(0.0, 0.1), st.booleans(), st.floats(0.0, 0.3)), max_size=300))
def test_a_line_loses_nobody(moves: list[tuple[float, bool, float]]) -> None:
    """Each call runs, waits, is refused or expired, once; none begins late; the line is bounded."""
    now_s, line = 0.0, Line[int](limit_at(0.0))
    arrived_s: dict[int, float] = {}
    ends_s: dict[int, float] = {}
    running, waiting = list[int](), list[int]()
    for number, (after_s, is_arrival, allowed_s) in enumerate(moves):
        now_s += after_s
        if is_arrival or not running:
            arrived_s[number], ends_s[number] = now_s, now_s + allowed_s
            place = line.enter(now_s, ends_s[number], number)
            {Place.RUNS: running, Place.WAITS: waiting, Place.REFUSED: list[int]()}[place].append(
                number
            )
            assert min((ends_s[each] for each in waiting), default=inf) == line.next_end_s
        elif moves[number][2] < 0.1:
            gone = [each for each in waiting if ends_s[each] <= now_s]
            assert gone == line.expire(now_s)
            waiting = [each for each in waiting if each not in gone]
        else:
            begun, expired = line.leave(now_s, arrived_s[first := running.pop(0)], ends_s[first])
            assert waiting[: len(begun) + len(expired)] == sorted((*begun, *expired))
            assert all(ends_s[each] > now_s for each in begun)
            assert all(ends_s[each] <= now_s for each in expired)
            del waiting[: len(begun) + len(expired)]
            running += begun
        assert (len(running), len(waiting)) == (line.running, line.waiting)
        assert len(running) + len(waiting) <= LIMIT_MAX


def test_who_has_time_may_wait_where_others_are_refused() -> None:
    """Where a call ends every 10 ms, 100 take a second: five are time enough, one is not."""
    line, now_s = Line[int](limit_at(0.0)), 0.0
    for number in range(60):
        assert line.enter(now_s, now_s + 5.0, number) is not Place.REFUSED
    for number in range(60, 100):
        now_s += 0.01
        line.leave(now_s, now_s - 0.1, now_s + 5.0)
        line.enter(now_s, now_s + 5.0, number)
    assert line.waiting > line.limit.waiting_max
    while line.running + line.waiting < 100:
        assert line.enter(now_s, now_s + 5.0, 0) is Place.WAITS
    assert line.enter(now_s, now_s + 1.0, 0) is Place.REFUSED
    while line.enter(now_s, now_s + 1e6, 0) is Place.WAITS:
        pass
    assert LIMIT_MAX == line.running + line.waiting
