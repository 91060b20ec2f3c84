"""Log lines: JSON for machines, or readable ones for people. Only this file knows structlog.

Configured once, before the first gRPC channel (guidance of grpc issue #43421: a late change of
logging's configuration can deadlock with gRPC's threads).
"""

import logging
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

import structlog

from rangefinder.documents import STRICT

_GRPC_SERVER = "grpc._cython.cygrpc"


class LogFormat(StrEnum):
    JSON = "json"
    PEOPLE = "people"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """How a process logs, on standard output."""

    __pydantic_config__: ClassVar = STRICT

    format: LogFormat = LogFormat.JSON
    level: LogLevel = LogLevel.INFO


class Log(Protocol):
    """An event's name, then its values by keyword: `log.info("shard_loaded", shard="s-0")`."""

    def debug(self, event: str, **values: object) -> object: ...
    def info(self, event: str, **values: object) -> object: ...
    def warning(self, event: str, **values: object) -> object: ...
    def error(self, event: str, **values: object) -> object: ...
    def exception(self, event: str, **values: object) -> object: ...


def configure(config: LogConfig, process: str) -> None:
    """Set up logging of this process, libraries included; every line carries its name."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if config.format is LogFormat.JSON
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    level = logging.getLevelNamesMapping()[config.level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(stream=sys.stdout, level=max(level, logging.WARNING))
    logging.getLogger(_GRPC_SERVER).addFilter(is_worth_telling)


def is_worth_telling(record: logging.LogRecord) -> bool:
    """An answer whose caller went as it was sent is none of gRPC's errors, and has no reader."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"


def get_log() -> Log:
    """The log of this process."""
    log: Log = structlog.get_logger()
    return log
