"""Columns and outcomes between the node's values and the internal messages."""

import numpy as np

from rangefinder.errors import InvalidRequest
from rangefinder.internal.v1 import node_pb2 as wire
from rangefinder.keys import KEY_COUNT, Keys
from shard_server.node import Node
from shard_server.shard import Shard


def shard_outcome(node: Node, name: str, missed_reason: str) -> wire.ShardOutcome:
    """What became of one shard; an empty reason: it was searched or read, whole."""
    about, recall = node.replicas[name].about, node.replicas[name].probe_recall
    return wire.ShardOutcome(
        shard=name,
        item_count=about.item_count,
        missed_reason=missed_reason,
        probe_recall=recall or 0.0,
    )


def column(content: bytes, dtype: type[np.generic], field_name: str) -> np.ndarray:
    """A little-endian column. Raises InvalidRequest where the bytes are not whole values."""
    if len(content) % np.dtype(dtype).itemsize:
        raise InvalidRequest(field_name, f"{len(content)} bytes are no column of {dtype.__name__}")
    return np.frombuffer(content, dtype)


def places_in(shard: Shard, keys: Keys) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Places of the keys in the range of a shard."""
    inside = keys >= np.uint64(shard.about.key_start)
    if shard.about.key_end < KEY_COUNT:
        inside &= keys < np.uint64(shard.about.key_end)
    return np.flatnonzero(inside)
