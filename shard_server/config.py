"""The one YAML file of a node. `deploy/config/node.yaml` comments every key."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from rangefinder.documents import STRICT, Address, Count, Name, Port, Positive, Seconds
from rangefinder.telemetry.logs import LogConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Checked once at start; an unknown key is an error."""

    __pydantic_config__: ClassVar = STRICT

    name: Name = "node-0"
    listen: Address = "127.0.0.1:7100"
    search_port: Port = 7101
    map_file: Path = Path("/var/lib/rangefinder/map/map.json")
    release: Path = Path("/var/lib/rangefinder/release")
    search_threads: Count = 0
    searches_in_flight_max: Positive = 64
    drain_s: Seconds = 10.0
    metrics: Address | None = None
    log: LogConfig = field(default_factory=LogConfig)
