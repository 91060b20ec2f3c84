"""What a run of `rangefinder bench` leaves: every figure of every repetition, as it is written to JSON.

Medians and ratios are taken of them when they are read: a ratio is that of one repetition, so that both
sides met the same machine.
"""

from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from rangefinder.cli.bench.lists import Mode
from rangefinder.cli.bench.schedule import Latency
from rangefinder.cli.bench.trials import Fault, Overload
from rangefinder.documents import STRICT

FORMAT = 2

# Unary calls whose CPU is judged: as many at once as fill batches, few enough for one client.
JUDGED_IN_FLIGHT = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where it was measured, and with what."""

    __pydantic_config__: ClassVar = STRICT

    processor: str
    cores: int
    system: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What was measured, and how: all that a second run would need."""

    __pydantic_config__: ClassVar = STRICT

    release: str
    catalogue: str
    items: int
    dimension: int
    metric: str
    shards: int
    nodes: int
    replicas: int
    router_workers: int
    address: str | None  # Of a cluster that was running already.
    queries: int
    seed: int
    item_count: int
    width: int
    queries_per_message: int
    seconds: float
    runs: int
    generators: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """Microseconds of CPU for each query, of the processes that serve; the load generator is none."""

    __pydantic_config__: ClassVar = STRICT

    routers: float
    nodes: float

    @property
    def total(self) -> float:
        return self.routers + self.nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """Empty calls to another process: the unit of latency."""

    __pydantic_config__: ClassVar = STRICT

    run: int
    in_flight: int  # 0: paced.
    calls_per_s: float
    latency: Latency
    server_cpu_us: float  # For each call.


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The indexes in memory: microseconds of CPU and queries, all processes together."""

    __pydantic_config__: ClassVar = STRICT

    run: int
    processes: int
    index_us: float
    index_queries_per_s: float
    scored_us: float  # With scores and merge, as a node does it.
    scored_queries_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load for a while: a closed loop, or an open one where `rate` is given."""

    __pydantic_config__: ClassVar = STRICT

    run: int
    mode: Mode
    in_flight: int  # 0 in an open loop.
    rate: float | None  # Messages a second.
    queries_per_s: float
    latency: Latency | None  # None: no answer at all.
    cpu: Cpu | None  # None where the processes are not of this machine.
    messages: int
    failed: int
    partial: int
    failures: dict[str, int]
    sent_late_ms: float  # p99; how far an open loop was behind its own schedule.


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """What one search width finds, and how many queries a second there are with it."""

    __pydantic_config__: ClassVar = STRICT

    width: int
    recall: float
    queries_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything of one run."""

    __pydantic_config__: ClassVar = STRICT

    format: int
    made_at: str
    machine: Machine
    setting: Setting
    recall: float
    recall_target: float
    echoes: list[Echo]
    paced: list[Echo]  # As many a second as the closed loop of unary calls that CPU is judged by.
    kernels: list[Kernel]
    closed: list[Load]
    open: list[Load]
    widths: list[Width]
    overloads: list[Overload]
    faults: list[Fault]

    def echo(self, in_flight: int) -> list[Echo]:
        """One for each repetition, in their order."""
        return [each for each in self.echoes if each.in_flight == in_flight]

    def load(self, mode: Mode, in_flight: int) -> list[Load]:
        """A closed loop, in each repetition."""
        return [each for each in self.closed if (each.mode, each.in_flight) == (mode, in_flight)]

    def cells(self) -> list[tuple[Mode, int]]:
        """Every closed loop that was measured, in order."""
        return list(dict.fromkeys((each.mode, each.in_flight) for each in self.closed))

    def rates(self) -> list[float]:
        """Every open loop, in order. Its rate is the same in each repetition."""
        return list(dict.fromkeys(each.rate for each in self.open if each.rate is not None))

    def faults_of(self, kind: str) -> list[Fault]:
        """One for each repetition."""
        return [each for each in self.faults if each.kind == kind]

    def fault_kinds(self) -> list[str]:
        """Every kind of fault that there was, in order."""
        return list(dict.fromkeys(each.kind for each in self.faults))

    def peak(self) -> float | None:
        """Queries a second of the best closed loop of one query a message; None without any."""
        return max(self._unary_rates().values(), default=None)

    def peak_in_flight(self) -> int:
        """How many were in flight in that one."""
        rates = self._unary_rates()
        return max(rates, key=lambda in_flight: rates[in_flight])

    def _unary_rates(self) -> dict[int, float]:
        cells = [cell for cell in self.cells() if cell[0] is Mode.UNARY]
        return {
            in_flight: median(each.queries_per_s for each in self.load(mode, in_flight))
            for mode, in_flight in cells
        }
