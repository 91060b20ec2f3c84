"""Rangefinder: the client, and what all of its processes share."""

from rangefinder.answers import (
    Certificate,
    Degradation,
    Explanation,
    Item,
    ItemsRead,
    MissedRange,
    Recommended,
    Retrieved,
    RetrievedBatch,
    SourceScore,
)
from rangefinder.client import Client, RetrieveStream
from rangefinder.errors import RangefinderError
from rangefinder.version import __version__

__all__ = [
    "Certificate",
    "Client",
    "Degradation",
    "Explanation",
    "Item",
    "ItemsRead",
    "MissedRange",
    "RangefinderError",
    "Recommended",
    "RetrieveStream",
    "Retrieved",
    "RetrievedBatch",
    "SourceScore",
    "__version__",
]
