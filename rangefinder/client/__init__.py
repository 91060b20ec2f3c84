"""The client. `rangefinder.Client` is its front door; see client.py."""

from rangefinder.client.client import Client
from rangefinder.client.stream import RetrieveStream

__all__ = ["Client", "RetrieveStream"]
