"""Messages as another version of the software writes them. Not a version: what any of them may do.

A newer one sets fields that this one does not know, in any message; an older one lacks the newest.
"""

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message

# Field 10,000 as a varint, 1: no message of ours has so many fields.
_UNKNOWN = bytes.fromhex("80f10401")

# What tells how a process fares, or explains an answer: the first to be added, and nothing that an
# answer is made of.
_NEWEST = {
    "SearchAnswer": ("duration_ms", "queue_length"),
    "GetNodeStatusResponse": (
        *("software_version", "start_time", "memory_bytes"),
        *("private_memory_bytes", "memory_limit_bytes"),
    ),
    "HeldReplica": ("memory_bytes", "query_rate", "p99_ms", "probe_recall", "load_s"),
    "Certificate": ("degradations", "estimated_recall", "stage_timings"),
    "NodeStatus": ("software_version", "start_time", "memory_bytes", "memory_limit_bytes"),
    "RankResponse": ("defaulted_features", "features", "stage_timings"),
    "RecommendResponse": ("request_id", "ranker_model_version"),
}


def newer(message: Message) -> None:
    """Give the message, and each in it, a field that this version does not know."""
    message.MergeFromString(_UNKNOWN)
    for part in _messages_in(message):
        newer(part)


def older(message: Message) -> None:
    """Leave the newest fields out of the message and each in it."""
    for name in _NEWEST.get(message.DESCRIPTOR.name, ()):
        message.ClearField(name)
    for part in _messages_in(message):
        older(part)


def _messages_in(message: Message) -> Iterable[Message]:
    """But for entries of maps, and what is not ours."""
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None or kind.GetOptions().map_entry or not kind.full_name.startswith("rangefinder."):
            continue
        many: Any = (value,) if isinstance(value, Message) else value
        yield from many
