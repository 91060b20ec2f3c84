"""The one YAML file of a ranking service. `deploy/config/ranker.yaml` comments every key."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from rangefinder.documents import STRICT, Address, Count, Name, Pause, Positive, Seconds
from rangefinder.telemetry.logs import LogConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerConfig:
    """Checked once at start; an unknown key is an error."""

    __pydantic_config__: ClassVar = STRICT

    name: Name = "ranker-0"
    listen: Address = "127.0.0.1:7200"
    release: Path = Path("/var/lib/rangefinder/release")
    scoring_threads: Count = 0
    requests_in_flight_max: Positive = 256
    drain_announce_s: Pause = 5.0
    drain_s: Seconds = 10.0
    metrics: Address | None = None
    log: LogConfig = field(default_factory=LogConfig)
