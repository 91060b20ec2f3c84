"""Rangefinder: the client, and what all of its processes share."""

from rangefinder.answers import Certificate, Item, ItemsRead, MissedRange, Retrieved, RetrievedBatch
from rangefinder.client import Client
from rangefinder.errors import RangefinderError
from rangefinder.version import __version__

__all__ = [
    "Certificate",
    "Client",
    "Item",
    "ItemsRead",
    "MissedRange",
    "RangefinderError",
    "Retrieved",
    "RetrievedBatch",
    "__version__",
]
