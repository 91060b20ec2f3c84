"""Asking nodes for a batch: first ones, others too where one is late, others instead where one failed.

What it decides is pure and elsewhere: choice, pace, health, hedging, attempts and budget. Here are the
links, the clock and the timers. A batch whose shards have one replica each needs none of it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rangefinder.cluster_map import ClusterMap
from rangefinder.errors import Internal, RangefinderError, ReplicaUnavailable
from router.batch import Batch, NodeAnswer
from router.budget import Budget
from router.choice import Choice
from router.coverage import ShardResult
from router.health import SILENCE_S
from router.hedging import (
    HEDGE_S_MIN,
    is_given_up,
    is_of_the_node,
    look_again_s,
    may_retry,
    queries_of,
)
from router.node_link import NodeLink
from router.replicas import Replicas

# With less time no other node could answer before the deadline either.
_WATCHED_S_MIN = 3 * HEDGE_S_MIN


class Dispatch:
    """The messages of batches that are out."""

    def __init__(
        self,
        cluster_map: ClusterMap,
        links: Mapping[str, NodeLink],
        on_answer: Callable[[NodeAnswer, float], None],
        on_over: Callable[[Batch], None],
    ) -> None:
        """on_answer: told of every answer and how long it took; on_over: of a batch that is complete,
        or for which nothing more is to come."""
        self._links, self._replicas = links, Replicas(cluster_map, links)
        self._on_answer, self._on_over = on_answer, on_over
        self.budget = Budget(time.monotonic())
        self.hedge_delay_s = 0.0  # The longest of the last batch.
        self._asked_s: dict[str, float] = {}  # When each node was first asked since it was heard of.

    def send(self, batch: Batch) -> None:
        """Ask for a batch; where nobody can be asked, it is over at once, and on_over is not told."""
        choice = self._replicas.choose_all(batch.sent_s)
        for name in choice.unavailable:
            batch.results[name] = ShardResult(None, ReplicaUnavailable.reason)
        self._ask(batch, choice, batch.sent_s)
        if not self._replicas.are_single:
            self.budget.record_queries(batch.sent_s, len(batch.attempts) * batch.query_count)
            self._watch(batch, 0, batch.sent_s)

    def expire(self, batch: Batch) -> None:
        """Nobody waits any more: tell the nodes that have not answered, and note who says nothing."""
        now_s = time.monotonic()
        self.record_silence(batch, now_s)
        for number in batch.attempts.under_way:
            attempt = batch.attempts[number]
            link = self._links[attempt.node]
            link.pace.record_waiting(now_s, now_s - attempt.sent_s, attempt.ahead)
            if batch.attempts.owed(number):  # Else what it says of itself is still awaited.
                link.cancel(batch.search_ids[number])

    def record_silence(self, batch: Batch, now_s: float) -> None:
        """Count nodes that owe an answer and have said nothing for long; once for each batch."""
        for number in batch.attempts.under_way:
            node = batch.attempts[number].node
            link = self._links[node]
            is_silent = now_s - max(self._asked_s[node], link.last_alive_s) >= SILENCE_S
            if is_silent and number not in batch.silent and batch.attempts.owed(number):
                batch.silent.add(number)
                link.health.record_silence(now_s)

    def _ask(self, batch: Batch, choice: Choice, now_s: float) -> None:
        for node, shards in choice.shards_of_node.items():
            link = self._links[node]
            if self._asked_s.get(node, 0.0) <= link.last_heard_s:
                self._asked_s[node] = now_s
            number = batch.attempts.add(node, shards, now_s, link.in_flight)
            on_reply = partial(self._on_reply, batch, number)
            batch.search_ids[number] = link.search(batch.content, shards, on_reply)

    def _watch(self, batch: Batch, first: int, now_s: float) -> None:
        """Look at the nodes of messages from `first` on when most of their answers are there."""
        loop, left_s = asyncio.get_running_loop(), batch.first_end_s - now_s
        if left_s < _WATCHED_S_MIN:
            return
        p95_s = self._replicas.p95_s(now_s)
        self.hedge_delay_s = 0.0
        for number in range(first, len(batch.attempts)):
            attempt = batch.attempts[number]
            delay_s = self._replicas.hedge_delay_s(attempt.node, attempt.shards, left_s, p95_s)
            self.hedge_delay_s = max(self.hedge_delay_s, delay_s)
            batch.timers[number] = loop.call_later(delay_s, self._on_late, batch, number)

    def _on_late(self, batch: Batch, number: int) -> None:
        """Ask others for what a node still owes, too; or instead, where it has long said nothing."""
        attempts, now_s = batch.attempts, time.monotonic()
        batch.timers.pop(number, None)
        if batch.is_resolved or number not in attempts.under_way:
            return
        attempt = attempts[number]
        waited_s = now_s - attempt.sent_s
        self._links[attempt.node].pace.record_waiting(now_s, waited_s, attempt.ahead)
        owed = attempts.last_asked(number)
        left = self._ask_others(batch, owed, number, now_s) if owed else owed
        if self._replicas.are_there_others(left, attempts.tried_for(left)):
            self._look_again(batch, number, now_s)

    def _ask_others(self, batch: Batch, owed: list[str], number: int, now_s: float) -> Sequence[str]:
        """Hedge, or replace, the message that owes some shards; returns those that nobody can take."""
        attempts, attempt = batch.attempts, batch.attempts[number]
        choice = self._replicas.choose_again(owed, attempts.tried_for(owed), now_s)
        coverable = [name for names in choice.shards_of_node.values() for name in names]
        if not coverable:
            return owed
        is_silent = self._links[attempt.node].last_heard_s < attempt.sent_s
        waited_s, allowed_s = now_s - attempt.sent_s, batch.first_end_s - attempt.sent_s
        take = (
            self.budget.take_retry
            if is_given_up(waited_s, allowed_s, is_silent=is_silent)
            else self.budget.take_hedge
        )
        if not take(queries_of(coverable, attempt.shards, batch.query_count)):
            return owed
        self._ask_more(batch, choice, now_s)
        return choice.unavailable

    def _ask_more(self, batch: Batch, choice: Choice, now_s: float) -> None:
        """Send hedges or retries, which may be late themselves."""
        first = len(batch.attempts)
        self._ask(batch, choice, now_s)
        self._watch(batch, first, now_s)

    def _look_again(self, batch: Batch, number: int, now_s: float) -> None:
        sent_s = batch.attempts[number].sent_s
        again_s = look_again_s(now_s - sent_s, batch.first_end_s - sent_s)
        loop = asyncio.get_running_loop()
        batch.timers[number] = loop.call_later(again_s, self._on_late, batch, number)

    def _on_reply(self, batch: Batch, number: int, answer: NodeAnswer | RangefinderError) -> None:
        """A node has answered, or failed; maybe after others did in its place."""
        if timer := batch.timers.pop(number, None):
            timer.cancel()
        if isinstance(answer, NodeAnswer) and not batch.is_answered_by(number, answer):
            answer = Internal(f"node {batch.attempts[number].node} answered something else")
        if isinstance(answer, NodeAnswer):
            self._take_answer(batch, number, answer)
        else:
            self._take_failure(batch, number, answer)
        if batch.attempts.is_over and not batch.is_resolved:
            self._on_over(batch)

    def _take_answer(self, batch: Batch, number: int, answer: NodeAnswer) -> None:
        attempts, attempt = batch.attempts, batch.attempts[number]
        link = self._links[attempt.node]
        link.health.record_success()
        now_s = time.monotonic()
        if not self._replicas.are_single:
            link.pace.record(now_s, now_s - attempt.sent_s, attempt.ahead)
        self._on_answer(answer, now_s - attempt.sent_s)
        searched = [name for name, result in answer.results.items() if not result.missed_reason]
        if attempts.answered(number, searched):
            batch.answers.append(answer)
        batch.record(answer.results)
        if not self._replicas.are_single:
            for lost in attempts.lost:
                self._record_lost(batch, lost)

    def _record_lost(self, batch: Batch, number: int) -> None:
        """Others were faster. Who was heard of since is busy, and need not bother any more.

        Of who was not, the answer is awaited still: how long it takes says how the node is.
        """
        now_s, attempt = time.monotonic(), batch.attempts[number]
        link = self._links[attempt.node]
        link.pace.record_waiting(now_s, now_s - attempt.sent_s, attempt.ahead)
        if link.last_heard_s >= attempt.sent_s:
            batch.attempts.give_up(number)
            link.cancel(batch.search_ids[number])
        else:
            link.health.record_lost(attempt.sent_s)

    def _take_failure(self, batch: Batch, number: int, error: RangefinderError) -> None:
        """Ask others instead, where nobody was asked since the node that failed."""
        attempts, attempt, now_s = batch.attempts, batch.attempts[number], time.monotonic()
        if is_of_the_node(error):
            self._links[attempt.node].health.record_failure(now_s)
        shards = attempts.give_up(number)
        if not batch.is_resolved and may_retry(error, batch.ends_at_s - now_s):
            self._retry(batch, number, now_s)
        batch.record(dict.fromkeys(shards, ShardResult(None, error.reason)))

    def _retry(self, batch: Batch, number: int, now_s: float) -> None:
        """Ask others for what a node could not take; else look again at who was asked before it."""
        attempts, attempt = batch.attempts, batch.attempts[number]
        shards = attempts.last_asked(number)
        tried = attempts.tried_for(shards)
        if not self._replicas.are_there_others(shards, tried):
            return
        choice = self._replicas.choose_again(shards, tried, now_s)
        cost = queries_of(shards, attempt.shards, batch.query_count)
        if choice.shards_of_node and self.budget.take_retry(cost):
            self._ask_more(batch, choice, now_s)
            return
        for earlier in attempts.under_way:
            if earlier not in batch.timers and attempts.last_asked(earlier):
                self._look_again(batch, earlier, now_s)
