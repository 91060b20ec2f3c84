"""The one YAML file of a router. `deploy/config/router.yaml` comments every key."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from rangefinder.documents import (
    STRICT,
    Address,
    BatchRows,
    Name,
    Pause,
    Positive,
    Seconds,
    WorkerCount,
    WorkerName,
)
from rangefinder.telemetry.logs import LogConfig
from router.pipeline import DEFAULT, Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """Checked once at start; an unknown key is an error."""

    __pydantic_config__: ClassVar = STRICT

    name: WorkerName = "router-0"
    listen: Address = "127.0.0.1:7000"
    workers: WorkerCount = 1
    map_file: Path = Path("/var/lib/rangefinder/map/map.json")
    release: Path | None = None
    rankers: tuple[Address, ...] = ()
    pipelines: dict[Name, Pipeline] = field(default_factory=lambda: {DEFAULT: Pipeline()})
    default_deadline_ms: Positive = 200
    requests_in_flight_max: Positive = 1000
    batch_rows_max: BatchRows = 256
    drain_announce_s: Pause = 5.0
    drain_s: Seconds = 10.0
    metrics: Address | None = None
    log: LogConfig = field(default_factory=LogConfig)
