"""What the log leaves out of what gRPC says."""

import logging
from collections.abc import Iterator

import pytest

from rangefinder.telemetry.logs import is_worth_telling


class ExecuteBatchError(Exception):
    """As gRPC names what befalls an answer whose caller has gone."""


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A log as gRPC's is after configure()."""
    log = logging.getLogger("tests.grpc")
    log.addFilter(is_worth_telling)
    yield log
    log.removeFilter(is_worth_telling)


def test_an_answer_that_nobody_was_there_for_is_no_error(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """gRPC logs it with a traceback; anything else that it logs is told."""
    for error in (ExecuteBatchError("send"), ValueError("a bug")):
        try:
            raise error
        except Exception:
            log.exception("raised")
    log.error("plain")
    kinds = [record.exc_info[0] if record.exc_info else None for record in caplog.records]
    assert [ValueError, None] == kinds
