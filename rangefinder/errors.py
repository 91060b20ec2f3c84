"""Every failure that Rangefinder expects: one tree, each class with its gRPC status and its reason.

A program matches `reason`, which is wire format; people read the message, which says what to do.
Translation to and from gRPC is the edge's work (`rangefinder/edge/status.py`). Anything else that
is raised is a bug.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from rangefinder.v1.types_pb2 import Certificate


class RangefinderError(Exception):
    """Base of the errors below. `reason` is wire format: never rename or reuse one."""

    status: ClassVar[str]  # Name of a grpc.StatusCode.
    reason: ClassVar[str]  # Unique, stable; what callers match on.
    by_reason: ClassVar[dict[str, type["RangefinderError"]]] = {}

    def __init_subclass__(cls, status: str, reason: str) -> None:
        cls.status, cls.reason = status, reason
        if RangefinderError.by_reason.setdefault(reason, cls) is not cls:
            raise TypeError(f"{cls.__name__} reuses reason {reason}")

    @property
    def message(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that cannot be served as it is."""

    field: str  # Path of the field, such as "query.values".
    description: str  # What is wrong, and what would be right.


class InvalidRequest(RangefinderError, status="INVALID_ARGUMENT", reason="INVALID_REQUEST"):
    """A request that no server of this version could serve."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.violation = FieldViolation(field, description)


class WrongDimension(RangefinderError, status="INVALID_ARGUMENT", reason="WRONG_DIMENSION"): ...


class NotSupported(RangefinderError, status="UNIMPLEMENTED", reason="NOT_SUPPORTED"): ...


class UnknownRelease(RangefinderError, status="FAILED_PRECONDITION", reason="UNKNOWN_RELEASE"): ...


class ReleaseNotServed(RangefinderError, status="FAILED_PRECONDITION", reason="RELEASE_NOT_SERVED"): ...


class UnknownUser(RangefinderError, status="NOT_FOUND", reason="UNKNOWN_USER"):
    """Nothing can be proposed: no embedding, no recent items, and no source that needs neither."""


class UnknownModel(RangefinderError, status="NOT_FOUND", reason="UNKNOWN_MODEL"): ...


class RankerUnavailable(RangefinderError, status="UNAVAILABLE", reason="RANKER_UNAVAILABLE"): ...


class InvalidRanking(RangefinderError, status="INTERNAL", reason="INVALID_RANKING"):
    """A ranker's answer that cannot be one to what it was asked."""


class UnknownShard(RangefinderError, status="NOT_FOUND", reason="UNKNOWN_SHARD"): ...


class MapChanged(RangefinderError, status="ABORTED", reason="MAP_CHANGED"): ...


class NotReady(RangefinderError, status="UNAVAILABLE", reason="NOT_READY"): ...


class ReplicaUnavailable(RangefinderError, status="UNAVAILABLE", reason="REPLICA_UNAVAILABLE"): ...


class Draining(RangefinderError, status="UNAVAILABLE", reason="DRAINING"): ...


class DeadlineSpent(RangefinderError, status="DEADLINE_EXCEEDED", reason="DEADLINE_SPENT"): ...


class Internal(RangefinderError, status="INTERNAL", reason="INTERNAL"):
    """A bug of ours, told to the caller without its details; the server's log has them."""


class CoverageTooLow(RangefinderError, status="UNAVAILABLE", reason="COVERAGE_TOO_LOW"):
    """Less of the catalogue could be searched than the caller's minimum."""

    def __init__(self, message: str, certificate: "Certificate | None" = None) -> None:
        super().__init__(message)
        self.certificate = certificate


class Overloaded(RangefinderError, status="RESOURCE_EXHAUSTED", reason="OVERLOADED"):
    """More work than the server admits; it says when to come back."""

    def __init__(self, message: str, retry_after_ms: int = 50) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class InputRefused(RangefinderError, status="INVALID_ARGUMENT", reason="INPUT_REFUSED"):
    """A file, an option or a setting that a person gave and that cannot be used."""


class ReleaseDamaged(RangefinderError, status="DATA_LOSS", reason="RELEASE_DAMAGED"):
    """A file that is not what was written: never served. The message names the file."""


class AddressInUse(RangefinderError, status="UNAVAILABLE", reason="ADDRESS_IN_USE"):
    """A port or a data directory that another process holds."""
