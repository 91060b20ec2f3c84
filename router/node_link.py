"""The one stream of this router worker to a node: kept open, tagged, several searches in flight.

A broken stream fails what was in flight at once and is opened again with jitter. A search that nobody
wants any more is dropped by a message, never by cancelling a call, which would leak.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from rangefinder.edge.channel import INTERNAL_BYTES_MAX, open_channel
from rangefinder.edge.status import error_of, error_with_reason
from rangefinder.errors import Internal, NotReady, RangefinderError, ReplicaUnavailable
from rangefinder.internal.v1 import node_pb2 as wire
from rangefinder.internal.v1.node_pb2_grpc import NodeServiceStub
from rangefinder.merge import NO_SCORE, Hits
from rangefinder.telemetry.logs import get_log
from router.batch import NodeAnswer, QueryBlock
from router.coverage import ShardResult
from router.health import NodeHealth

if TYPE_CHECKING:  # It stands in the type stubs alone.
    from rangefinder.internal.v1.node_pb2_grpc import NodeServiceAsyncStub

OnAnswer = Callable[[NodeAnswer | RangefinderError], None]

_RECONNECT_S_MIN, _RECONNECT_S_MAX = 0.05, 1.0
_GREETING_S_MAX = 1.0
_PROBE_S_MAX = 0.5
_WATCH_S = 0.1


class NodeLink:
    """A node as this router worker sees it."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.health = name, NodeHealth()
        self.last_heard_s = 0.0
        self._channel = open_channel(address, INTERNAL_BYTES_MAX)
        self.stub: NodeServiceAsyncStub = NodeServiceStub(self._channel)
        self._outgoing: asyncio.Queue[wire.SearchRequest] = asyncio.Queue()
        self._waiting: dict[int, OnAnswer] = {}
        self._next_id = 1
        self._is_open = False
        self._log = get_log()

    @property
    def is_usable(self) -> bool:
        """Whether searches should be sent here."""
        return self._is_open and not self.health.is_ejected

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def search(
        self, epoch: int, blocks: Sequence[QueryBlock], shards: Sequence[str], on_answer: OnAnswer
    ) -> int:
        """Ask for the blocks, of one group, in some shards; returns the id to cancel by."""
        search_id, self._next_id = self._next_id, self._next_id + 1
        self._waiting[search_id] = on_answer
        batch = batch_message(epoch, blocks, shards)
        self._outgoing.put_nowait(wire.SearchRequest(search_id=search_id, batch=batch))
        return search_id

    def cancel(self, search_id: int) -> None:
        """Drop a search that nobody waits for."""
        if self._waiting.pop(search_id, None) is not None and self._is_open:
            self._outgoing.put_nowait(wire.SearchRequest(search_id=search_id, cancel=True))

    async def run(self) -> None:
        """Keep the stream open until cancelled."""
        delay_s = _RECONNECT_S_MIN
        try:
            while True:
                opened_s = time.monotonic()
                await self._stream_once()
                was_long = time.monotonic() - opened_s > _RECONNECT_S_MAX
                delay_s = _RECONNECT_S_MIN if was_long else min(delay_s * 2, _RECONNECT_S_MAX)
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
        finally:
            await self._channel.close()

    async def watch(self) -> None:
        """Probe the node while it is ejected, until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_S)
            if not self.health.is_probe_due(time.monotonic()):
                continue
            try:
                await self.stub.GetNodeStatus(wire.GetNodeStatusRequest(), timeout=_PROBE_S_MAX)
                succeeded = True
            except grpc.aio.AioRpcError:
                succeeded = False
            self.health.record_probe(time.monotonic(), succeeded=succeeded)
            if succeeded:
                self._log.info("node_taken_back", node=self.name)

    async def _stream_once(self) -> None:
        """Open a stream and use it until it ends."""
        call, writer = self.stub.Search(), None
        error: RangefinderError = ReplicaUnavailable(f"node {self.name} closed the stream")
        try:
            await self._greet(call)
            writer = asyncio.create_task(self._write(call), name=f"write-{self.name}")
            await self._read(call)
        except grpc.aio.AioRpcError as failure:
            error = error_of(failure)
        except RangefinderError as failure:
            error = failure
        except Exception:  # Such as an answer that is none: a bug, but one of this node alone.
            self._log.exception("stream_failed", node=self.name)
        finally:
            self._is_open = False
            if writer is not None:
                writer.cancel()
            call.cancel()
            self._fail_all(error)

    async def _greet(self, call: Any) -> None:
        """Wait for the node to say that it is READY; one that is frozen says nothing."""
        reading = asyncio.ensure_future(call.read())
        await asyncio.wait((reading,), timeout=_GREETING_S_MAX)
        if not reading.done():
            reading.cancel()
            raise ReplicaUnavailable(f"node {self.name} does not answer")
        greeting = reading.result()
        if greeting is grpc.aio.EOF or not greeting.ready:
            raise NotReady(f"node {self.name} is not ready")
        self._outgoing = asyncio.Queue()
        self._is_open = True
        self.health.record_success()
        self._log.info("node_connected", node=self.name)

    async def _write(self, call: Any) -> None:
        while True:
            await call.write(await self._outgoing.get())

    async def _read(self, call: Any) -> None:
        while (response := await call.read()) is not grpc.aio.EOF:
            self.last_heard_s = time.monotonic()
            if response.draining:
                self._is_open = False
                self._log.info("node_draining", node=self.name)
                continue
            on_answer = self._waiting.pop(response.search_id, None)
            if on_answer is not None:
                on_answer(self._answer_of(response))

    def _answer_of(self, response: wire.SearchResponse) -> NodeAnswer | RangefinderError:
        self.health.record_success()
        if response.WhichOneof("outcome") == "failure":
            failure = response.failure
            known = error_with_reason(failure.reason, failure.message)
            return known or Internal(f"node {self.name}: {failure.reason}: {failure.message}")
        return answer_of(response.answer)

    def _fail_all(self, error: RangefinderError) -> None:
        waiting, self._waiting = self._waiting, {}
        if waiting:
            self._log.warning("node_lost", node=self.name, searches=len(waiting), why=error.message)
        for on_answer in waiting.values():
            on_answer(ReplicaUnavailable(error.message))


def batch_message(epoch: int, blocks: Sequence[QueryBlock], shards: Sequence[str]) -> wire.SearchBatch:
    """Blocks of one group as one message."""
    group = blocks[0].group
    parts = [block.queries for block in blocks]
    queries = parts[0] if len(parts) == 1 else np.concatenate(parts)
    message = wire.SearchBatch(
        map_epoch=epoch,
        release=group.release,
        shards=shards,
        time_left_ms=max(block.deadline.remaining_s() for block in blocks) * 1000,
        queries=queries.tobytes(),
        query_count=len(queries),
        search_width=group.width,
        exact=group.exact,
    )
    for block in blocks:
        message.item_counts.extend([block.item_count] * len(block.queries))
    if any(block.excluded for block in blocks):
        _fill_excluded(message, blocks)
    return message


def _fill_excluded(message: wire.SearchBatch, blocks: Sequence[QueryBlock]) -> None:
    parts = []
    for block in blocks:
        parts += list(block.excluded) or [np.empty(0, np.uint64)] * len(block.queries)
    message.excluded_keys = np.concatenate(parts).tobytes()
    message.excluded_counts.extend(len(part) for part in parts)


def answer_of(answer: wire.SearchAnswer) -> NodeAnswer:
    """A node's columns as padded matrices."""
    counts = list(answer.item_counts)
    keys = np.frombuffer(answer.keys, np.uint64)
    scores = np.frombuffer(answer.scores, np.float32)
    width = max(counts, default=0)
    if counts.count(width) == len(counts):
        hits = Hits(keys.reshape(len(counts), width), scores.reshape(len(counts), width))
    else:
        hits = Hits(np.zeros((len(counts), width), np.uint64), np.full((len(counts), width), NO_SCORE))
        found = np.arange(width) < np.array(counts)[:, None]
        hits.keys[found] = keys
        hits.scores[found] = scores
    results = {
        outcome.shard: ShardResult(
            None if outcome.missed_reason else outcome.item_count,
            outcome.missed_reason,
            outcome.probe_recall,
        )
        for outcome in answer.shards
    }
    texts = dict(zip(keys.tolist(), answer.texts, strict=True)) if answer.texts else {}
    return NodeAnswer(hits, texts, results, answer.queue_length)
