"""Figures of trials: what became of an open loop while something was wrong."""

from dataclasses import dataclass
from typing import ClassVar

from rangefinder.cli.bench.schedule import Bin, Latency
from rangefinder.documents import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Queries that a router sent to nodes which hold the same, by why."""

    __pydantic_config__: ClassVar = STRICT

    first: float
    hedge: float
    retry: float

    def since(self, before: "Sent") -> "Sent":
        return Sent(
            first=self.first - before.first,
            hedge=self.hedge - before.hedge,
            retry=self.retry - before.retry,
        )

    @property
    def hedge_share(self) -> float:
        return self.hedge / max(self.first, 1.0)

    @property
    def retry_share(self) -> float:
        return self.retry / max(self.first, 1.0)

    @property
    def extra_share(self) -> float:
        return (self.hedge + self.retry) / max(self.first, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Requests that were due in a part of a trial."""

    __pydantic_config__: ClassVar = STRICT

    what: str
    begin_s: float  # From the beginning of the load.
    end_s: float
    requests: int
    failed: int
    partial: int
    latency: Latency | None  # None: no answer.
    sent: Sent | None  # None: the router does not say.

    @property
    def attempts(self) -> float | None:
        """Queries sent to nodes for each request: one for each node that is needed, and the extra."""
        if self.sent is None or not self.requests:
            return None
        return (self.sent.first + self.sent.hedge + self.sent.retry) / self.requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An open loop through the fault of one node."""

    __pydantic_config__: ClassVar = STRICT

    run: int
    kind: str
    node: str
    nodes: int
    replicas: int
    rate: float
    begin_s: float  # From the beginning of the load.
    end_s: float
    messages: int
    failed: int
    failures: dict[str, int]
    hedge_delay_s: float | None  # Of the router, when the fault began.
    left_out_after_s: float | None  # When no router used the node any more; None: not seen.
    sent_late_ms: float  # p99
    spans: list[Span]
    bins: list[Bin]

    def span(self, what: str) -> Span | None:
        return next((each for each in self.spans if each.what == what), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """Usual traffic, which a flood joins for a while."""

    __pydantic_config__: ClassVar = STRICT

    run: int
    peak: float  # Queries a second, of a closed loop right before.
    usual_rate: float
    flood_rate: float  # Beside the usual one.
    begin_s: float  # Of the flood, from the beginning of the load.
    end_s: float
    goodput: float  # Whole answers a second while it lasted.
    answered: Latency | None
    refused: Latency | None  # OVERLOADED; milliseconds until the word came.
    partial: int
    failures: dict[str, int]  # As the others above: of what was due while it lasted.
    empty_p50_ms: float  # Of an empty call, as many a second.
    back_after_s: float | None  # From its end; None: not while there was load.
    routers_cores: float  # Processor time a second, while it lasted; what is left is the generators'.
    nodes_cores: float
    sent_late_ms: float  # p99
    spans: list[Span]
    bins: list[Bin]  # Of the usual traffic.

    def span(self, what: str) -> Span | None:
        return next((each for each in self.spans if each.what == what), None)
