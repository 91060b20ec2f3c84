"""A cluster and a router worker in simulated time: events of a heap, randomness of one seed.

SimulatedRouter drives choice, health, pace, hedging and budget as a gatherer does: a batch goes out,
then timers, answers and failures come in. It is a gatherer without sockets, merging and waiting.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import count

from rangefinder.cluster_map import Replica, Shard
from rangefinder.errors import RangefinderError, ReplicaUnavailable
from router.attempts import Attempts
from router.budget import Budget
from router.choice import Choice, choose
from router.health import SILENCE_S, NodeHealth
from router.hedging import (
    hedge_delay_s,
    is_given_up,
    look_again_s,
    may_retry,
    others_p95_s,
    queries_of,
    without,
)
from router.pace import NodePace

WIRE_S = 0.0002
TICK_S = 0.1
WORKERS = 2  # Of a node.


class Fault(Enum):
    """What one node does while its fault lasts."""

    NONE = "works"
    SLOW = "answers 200 ms later"
    FAILING = "fails every call, but for probes after a while"
    FLAKY = "fails six calls of ten"
    BLACK_HOLE = "takes everything and says nothing"
    GONE = "loses its connection, and opens a new one at the end"


SLOW_S, FLAKY_SHARE = 0.2, 0.6


class Events:
    """What is still to happen, by time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()

    def at(self, at_s: float, happen: Callable[[], object]) -> None:
        heapq.heappush(self._heap, (at_s, next(self._numbers), happen))

    def after(self, delay_s: float, happen: Callable[[], object]) -> None:
        self.at(self.now_s + delay_s, happen)

    def run_until(self, end_s: float) -> None:
        while self._heap and self._heap[0][0] <= end_s:
            self.now_s, _, happen = heapq.heappop(self._heap)
            happen()


Reply = Callable[[RangefinderError | None], object]  # None: an answer.


@dataclass(slots=True, kw_only=True)
class SimulatedNode:
    """A node and the router's link to it: workers, one queue, at times a fault."""

    name: str
    events: Events
    random: random.Random
    service_s: float
    fault: Fault = Fault.NONE
    is_open: bool = True
    last_heard_s: float = 0.0
    asked: list[float] = field(default_factory=list)  # When.
    waiting: dict[int, Reply] = field(default_factory=dict)
    busy: int = 0
    queue: deque[tuple[int, int]] = field(default_factory=deque)  # Of searches: id, shards.
    numbers: "count[int]" = field(default_factory=count)

    @property
    def in_flight(self) -> int:
        return len(self.waiting)

    def search(self, shard_count: int, reply: Reply) -> int:
        """Ask; returns the id to cancel by."""
        search_id, now_s = next(self.numbers), self.events.now_s
        self.waiting[search_id] = reply
        self.asked.append(now_s)
        match self.fault:
            case Fault.BLACK_HOLE:
                pass
            case Fault.FLAKY if self.random.random() < FLAKY_SHARE:
                self.events.after(WIRE_S, partial(self._reply, search_id, ReplicaUnavailable("flaky")))
            case Fault.FAILING:
                self.events.after(
                    WIRE_S, partial(self._reply, search_id, ReplicaUnavailable("failing"))
                )
            case _:
                self.queue.append((search_id, shard_count))
                self._work()
        return search_id

    def cancel(self, search_id: int) -> None:
        self.waiting.pop(search_id, None)

    def close(self) -> None:
        """The connection is lost, and everything on it."""
        self.is_open = False
        waiting, self.waiting = self.waiting, {}
        for reply in waiting.values():
            reply(ReplicaUnavailable("the stream broke"))

    def _work(self) -> None:
        """Begin what waits, but for what was cancelled."""
        while self.queue and self.busy < WORKERS:
            search_id, shard_count = self.queue.popleft()
            if search_id in self.waiting:
                self.busy += 1
                took_s = self.service_s * shard_count * self.random.uniform(0.5, 1.5)
                self.events.after(took_s, partial(self._finish, search_id))

    def _finish(self, search_id: int) -> None:
        self.busy -= 1
        delay_s = WIRE_S + (SLOW_S if self.fault is Fault.SLOW else 0.0)
        self.events.after(delay_s, partial(self._reply, search_id, None))
        self._work()

    def _reply(self, search_id: int, error: RangefinderError | None) -> None:
        reply = self.waiting.pop(search_id, None)
        self.last_heard_s = self.events.now_s
        if reply is not None:
            reply(error)


@dataclass(slots=True)
class Sent:
    """A batch that is out."""

    query_count: int
    sent_s: float
    deadline_s: float
    attempts: Attempts = field(default_factory=Attempts)
    search_ids: dict[int, int] = field(default_factory=dict)  # By number of the attempt.
    looks: dict[int, float] = field(default_factory=dict)  # When each is looked at next.
    is_resolved: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the caller of a batch saw."""

    sent_s: float
    took_s: float
    is_whole: bool


class SimulatedRouter:
    """What a gatherer and its links do, in simulated time."""

    def __init__(
        self, shards: Sequence[Shard], nodes: dict[str, SimulatedNode], events: Events
    ) -> None:
        self.shards, self.nodes, self.events = shards, nodes, events
        self.shard_of = {shard.name: shard for shard in shards}
        self.health = {name: NodeHealth() for name in nodes}
        self.pace = {name: NodePace(0.0) for name in nodes}
        self.budget = Budget(0.0)
        self.random = next(iter(nodes.values())).random
        self.outcomes: list[Outcome] = []
        self.hedged_s: list[float] = []  # When, once for each message.
        self.hedge_delays_s: list[float] = []
        self.ejected_s: dict[str, list[float]] = {name: [] for name in nodes}
        events.after(TICK_S, self.on_tick)

    # What a gatherer does.

    def send(self, query_count: int, allowed_s: float) -> None:
        """A batch goes out."""
        now_s = self.events.now_s
        batch = Sent(query_count, now_s, now_s + allowed_s)
        self._ask(batch, self._choose(self.shards))
        self.budget.record_queries(now_s, len(batch.attempts) * query_count)
        self.events.at(batch.deadline_s, partial(self.on_deadline, batch))
        if batch.attempts.is_over:
            self._resolve(batch)

    def _choose(self, shards: Sequence[Shard], tried: Sequence[str] = ()) -> Choice:
        now_s = self.events.now_s
        costs: dict[str, float] = {}
        shares: dict[str, float] = {}
        ejected: dict[str, float] = {}
        for name, node in self.nodes.items():
            health = self.health[name]
            if not node.is_open:
                continue
            cost = self.pace[name].cost(now_s, node.in_flight)
            if health.is_ejected:
                if not health.is_silent:
                    ejected[name] = cost
                continue
            costs[name] = cost
            if (share := health.share(now_s)) < 1.0:
                shares[name] = share
        numbers = [self.random.random() for _ in shards]
        if tried:
            costs, ejected = without(costs, tried), without(ejected, tried)
        return choose(shards, costs, numbers, shares=shares, ejected=ejected)

    def _ask(self, batch: Sent, choice: Choice) -> None:
        now_s = self.events.now_s
        for name, shards in choice.shards_of_node.items():
            number = batch.attempts.add(name, shards, now_s, self.nodes[name].in_flight)
            batch.search_ids[number] = self.nodes[name].search(
                len(shards), partial(self.on_reply, batch, number)
            )
            batch.looks[number] = now_s + self._hedge_delay_s(batch, number)
            self._look_at(batch, number)

    def _look_at(self, batch: Sent, number: int) -> None:
        self.events.at(batch.looks[number], partial(self.on_late, batch, number))

    def _hedge_delay_s(self, batch: Sent, number: int) -> float:
        now_s, attempt = self.events.now_s, batch.attempts[number]
        p95_s = {
            name: pace.p95_s(now_s)
            for name, pace in self.pace.items()
            if not self.health[name].is_ejected
        }
        others_s = others_p95_s(attempt.node, [self.shard_of[name] for name in attempt.shards], p95_s)
        delay_s = hedge_delay_s(p95_s.get(attempt.node, 0.0), others_s, batch.deadline_s - now_s)
        self.hedge_delays_s.append(delay_s)
        return delay_s

    def on_late(self, batch: Sent, number: int) -> None:
        """A node has not answered by the time most of its answers are there: ask others too."""
        attempts, now_s = batch.attempts, self.events.now_s
        batch.looks.pop(number, None)
        if batch.is_resolved or number not in attempts.under_way:
            return
        attempt = attempts[number]
        self.pace[attempt.node].record_waiting(now_s, now_s - attempt.sent_s, attempt.ahead)
        owed = attempts.last_asked(number)
        left = self._ask_others(batch, owed, number)
        if self._are_there_others(left, attempts.tried_for(left)):
            self._look_again(batch, number)

    def _ask_others(self, batch: Sent, owed: Sequence[str], number: int) -> Sequence[str]:
        """Hedge or replace a message; returns the shards that nobody can take."""
        attempts, attempt, now_s = batch.attempts, batch.attempts[number], self.events.now_s
        choice = self._choose([self.shard_of[name] for name in owed], attempts.tried_for(owed))
        coverable = [name for names in choice.shards_of_node.values() for name in names]
        if not coverable:
            return owed
        cost = queries_of(coverable, attempt.shards, batch.query_count)
        waited_s, allowed_s = now_s - attempt.sent_s, batch.deadline_s - attempt.sent_s
        is_silent = self.nodes[attempt.node].last_heard_s < attempt.sent_s
        if is_given_up(waited_s, allowed_s, is_silent=is_silent):
            is_granted = self.budget.take_retry(cost)
        elif is_granted := self.budget.take_hedge(cost):
            self.hedged_s.append(now_s)
        if not is_granted:
            return owed
        self._ask(batch, choice)
        return choice.unavailable

    def _are_there_others(self, names: Sequence[str], tried: Sequence[str]) -> bool:
        return any(each.node not in tried for name in names for each in self.shard_of[name].replicas)

    def _look_again(self, batch: Sent, number: int) -> None:
        now_s, sent_s = self.events.now_s, batch.attempts[number].sent_s
        batch.looks[number] = now_s + look_again_s(now_s - sent_s, batch.deadline_s - sent_s)
        self._look_at(batch, number)

    def on_reply(self, batch: Sent, number: int, error: RangefinderError | None) -> None:
        """A node has answered, or failed."""
        attempts, now_s = batch.attempts, self.events.now_s
        attempt = attempts[number]
        if error is None:
            self.health[attempt.node].record_success()
            self.pace[attempt.node].record(now_s, now_s - attempt.sent_s, attempt.ahead)
            attempts.answered(number, attempt.shards)
            for lost in attempts.lost:
                self._record_lost(batch, lost)
        else:
            self._record_failure(attempt.node)
            self._retry(batch, number, error)
        if attempts.is_over:
            self._resolve(batch)

    def _record_lost(self, batch: Sent, number: int) -> None:
        """Another replica was faster. Who was heard of since is busy, and need not bother any more.

        Of who was not, this answer is awaited: how long it takes says how the node is.
        """
        now_s, attempt = self.events.now_s, batch.attempts[number]
        node = self.nodes[attempt.node]
        self.pace[attempt.node].record_waiting(now_s, now_s - attempt.sent_s, attempt.ahead)
        if node.last_heard_s >= attempt.sent_s:
            batch.attempts.give_up(number)
            node.cancel(batch.search_ids[number])
        else:
            self.health[attempt.node].record_lost(attempt.sent_s)

    def _retry(self, batch: Sent, number: int, error: RangefinderError) -> None:
        """Ask others for what a node could not take, where nobody else was asked for it since."""
        attempts, left_s = batch.attempts, batch.deadline_s - self.events.now_s
        attempts.give_up(number)
        shards = attempts.last_asked(number)
        tried = attempts.tried_for(shards)
        is_left = self._are_there_others(shards, tried) and may_retry(error, left_s)
        if batch.is_resolved or not is_left:
            return
        choice = self._choose([self.shard_of[name] for name in shards], tried)
        cost = queries_of(shards, attempts[number].shards, batch.query_count)
        if choice.shards_of_node and self.budget.take_retry(cost):
            self._ask(batch, choice)
            return
        for earlier in attempts.under_way:
            if earlier not in batch.looks and attempts.last_asked(earlier):
                self._look_again(batch, earlier)

    def on_deadline(self, batch: Sent) -> None:
        """Answer with what there is; tell who has not answered."""
        self._resolve(batch)
        now_s = self.events.now_s
        for number in batch.attempts.under_way:
            attempt = batch.attempts[number]
            node = self.nodes[attempt.node]
            is_silent = now_s - max(node.last_heard_s, attempt.sent_s) >= SILENCE_S
            self.pace[attempt.node].record_waiting(now_s, now_s - attempt.sent_s, attempt.ahead)
            if not batch.attempts.owed(number):
                continue  # Others have answered; what it says of itself is still awaited.
            if is_silent:
                self._record_failure(attempt.node, is_silent=True)
            node.cancel(batch.search_ids[number])

    def _resolve(self, batch: Sent) -> None:
        if not batch.is_resolved:
            batch.is_resolved = True
            shards = {shard.name for shard in self.shards}
            asked = {name for number in batch.search_ids for name in batch.attempts[number].shards}
            owed = {name for number in batch.search_ids for name in batch.attempts.owed(number)}
            took_s = self.events.now_s - batch.sent_s
            self.outcomes.append(Outcome(batch.sent_s, took_s, asked == shards and not owed))

    # What a link does.

    def on_tick(self) -> None:
        """Look at who is silent, probe who is ejected."""
        self.events.after(TICK_S, self.on_tick)
        now_s = self.events.now_s
        for name, health in self.health.items():
            was_ejected = health.is_ejected
            health.look(now_s)
            self._note_ejection(name, was_ejected)
            if health.is_probe_due(now_s) and self.nodes[name].is_open:
                fault = self.nodes[name].fault
                health.record_probe(now_s, succeeded=fault in (Fault.NONE, Fault.SLOW, Fault.FLAKY))

    def reopen(self, name: str) -> None:
        """The node has a new connection."""
        self.nodes[name].is_open = True
        self.health[name].record_ready(self.events.now_s)

    def _record_failure(self, name: str, *, is_silent: bool = False) -> None:
        health, now_s = self.health[name], self.events.now_s
        was_ejected = health.is_ejected
        if is_silent:
            health.record_silence(now_s)
        else:
            health.record_failure(now_s)
        self._note_ejection(name, was_ejected)

    def _note_ejection(self, name: str, was_ejected: bool) -> None:
        if self.health[name].is_ejected and not was_ejected:
            self.ejected_s[name].append(self.events.now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One run: a cluster at part of its peak load, and a fault of one node or more."""

    seed: int
    fault: Fault
    node_count: int = 3
    shard_count: int = 1
    service_s: float = 0.01
    load: float = 0.5  # Of what all nodes can do.
    fault_count: int = 1  # Nodes that have it, from node-0 on.
    fault_from_s: float = 1.0
    fault_until_s: float = 1e9
    ends_s: float = 6.0
    allowed_s: float = 0.2


def simulate(scene: Scene) -> SimulatedRouter:
    """Run a scene; node-0 is the first with the fault. Every node holds every shard."""
    chance, events = random.Random(scene.seed), Events()
    names = [f"node-{number}" for number in range(scene.node_count)]
    nodes = {
        name: SimulatedNode(name=name, events=events, random=chance, service_s=scene.service_s)
        for name in names
    }
    replicas = tuple(Replica(node=name) for name in names)
    shards = [
        Shard(name=f"s-{place}", key_start=place, key_end=place + 1, replicas=replicas)
        for place in range(scene.shard_count)
    ]
    router = SimulatedRouter(shards, nodes, events)
    rate = scene.load * scene.node_count * WORKERS / (scene.service_s * scene.shard_count)
    arrives_s = 0.0
    while (arrives_s := arrives_s + chance.expovariate(rate)) < scene.ends_s:
        events.at(arrives_s, partial(router.send, 1, scene.allowed_s))
    for name in names[: scene.fault_count]:
        events.at(scene.fault_from_s, partial(_begin, nodes[name], scene.fault))
        events.at(scene.fault_until_s, partial(_end, router, name))
    events.run_until(scene.ends_s + 2 * scene.allowed_s)
    return router


def _begin(node: SimulatedNode, fault: Fault) -> None:
    node.fault = fault
    if fault is Fault.GONE:
        node.close()


def _end(router: SimulatedRouter, name: str) -> None:
    node = router.nodes[name]
    if node.fault is Fault.BLACK_HOLE:  # What it swallowed never comes; the connection is of no use.
        node.close()
    node.fault = Fault.NONE
    if not node.is_open:
        router.reopen(name)
