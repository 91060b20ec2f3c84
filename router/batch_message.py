"""A batch as a message to nodes, and a node's answer as columns."""

from collections.abc import Sequence

import numpy as np

from rangefinder.internal.v1 import node_pb2 as wire
from rangefinder.merge import NO_SCORE, Hits
from router.batch import NodeAnswer, QueryBlock
from router.coverage import ShardResult
from router.hedging import node_time_s


def batch_content(epoch: int, blocks: Sequence[QueryBlock]) -> bytes:
    """Blocks of one group as one SearchBatch, the same for every node."""
    group = blocks[0].group
    parts = [block.queries for block in blocks]
    queries = parts[0] if len(parts) == 1 else np.concatenate(parts)
    message = wire.SearchBatch(
        map_epoch=epoch,
        release=group.release,
        time_left_ms=node_time_s(max(block.deadline.remaining_s() for block in blocks)) * 1000,
        queries=queries.tobytes(),
        query_count=len(queries),
        search_width=group.width,
        exact=group.exact,
    )
    for block in blocks:
        message.item_counts.extend([block.item_count] * len(block.queries))
    if any(block.excluded for block in blocks):
        _fill_excluded(message, blocks)
    return message.SerializeToString()


def _fill_excluded(message: wire.SearchBatch, blocks: Sequence[QueryBlock]) -> None:
    parts = []
    for block in blocks:
        parts += list(block.excluded) or [np.empty(0, np.uint64)] * len(block.queries)
    message.excluded_keys = np.concatenate(parts).tobytes()
    message.excluded_counts.extend(len(part) for part in parts)


def answer_of(answer: wire.SearchAnswer) -> NodeAnswer:
    """A node's columns as padded matrices."""
    results = {
        outcome.shard: ShardResult(
            None if outcome.missed_reason else outcome.item_count,
            outcome.missed_reason,
            outcome.probe_recall,
        )
        for outcome in answer.shards
    }
    texts: dict[int, bytes] = {}
    if answer.texts:
        texts = dict(zip(np.frombuffer(answer.keys, np.uint64).tolist(), answer.texts, strict=True))
    return NodeAnswer(_hits_of(answer), texts, results, answer.queue_length, answer.duration_ms / 1000)


def _hits_of(answer: wire.SearchAnswer) -> Hits:
    counts = list(answer.item_counts)
    width = max(counts, default=0)
    shape = len(counts), width
    if counts.count(width) == len(counts):
        keys = np.ndarray(shape, np.uint64, answer.keys)
        return Hits(keys, np.ndarray(shape, np.float32, answer.scores))
    hits = Hits(np.zeros(shape, np.uint64), np.full(shape, NO_SCORE))
    found = np.arange(width) < np.array(counts)[:, None]
    hits.keys[found] = np.frombuffer(answer.keys, np.uint64)
    hits.scores[found] = np.frombuffer(answer.scores, np.float32)
    return hits
