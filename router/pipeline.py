"""What a recommendation is made of: sources, how many candidates, and what a request may change. Pure.

Parameters are named `<source>.<key>`, or `rank`. A request may override those that its pipeline
declares, within the bounds that are declared with them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from rangefinder.candidates import (
    CANDIDATE_COUNT,
    INDEX,
    ITEM_TO_ITEM,
    POPULARITY,
    QUOTAS,
    SEED_COUNT_MAX,
    WEIGHTS,
)
from rangefinder.documents import STRICT, Name
from rangefinder.errors import InputRefused, InvalidRequest

DEFAULT = "default"
CANDIDATES_MAX = 10_000  # A ranker takes no more.
RECENT_MAX = 1_000

# What any value of a key must lie in, and so the bounds that a pipeline declares.
_LIMITS: Mapping[str, tuple[float, float]] = {
    "quota": (0, CANDIDATES_MAX),
    "weight": (0, 1_000),
    "timeout_share": (0.01, 1),
    "seed_count": (1, RECENT_MAX),
    "candidate_count": (1, CANDIDATES_MAX),
    "rank": (0, 1),
}
_WHOLE = ("quota", "seed_count", "candidate_count", "rank")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How one source takes part. A quota of 0: it is not asked."""

    __pydantic_config__: ClassVar = STRICT
    name: ClassVar[str]

    quota: int  # Items that it proposes at most.
    weight: float  # In the merged order.
    timeout_share: float = 0.6  # Of the time allowed; later it proposes nothing.
    required: bool = False  # Whether the request fails with it; else the others answer.

    def __post_init__(self) -> None:
        for key in ("quota", "weight", "timeout_share"):
            _require_within(f"{self.name}.{key}", getattr(self, key))


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSource(Source):
    """The items nearest to the user's embedding."""

    name: ClassVar[str] = INDEX

    quota: int = QUOTAS[INDEX]
    weight: float = WEIGHTS[INDEX]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemToItemSource(Source):
    """The items most often had together with the user's recent ones."""

    name: ClassVar[str] = ITEM_TO_ITEM

    quota: int = QUOTAS[ITEM_TO_ITEM]
    weight: float = WEIGHTS[ITEM_TO_ITEM]
    seed_count: int = SEED_COUNT_MAX  # Recent items that it starts from, the newest ones.

    def __post_init__(self) -> None:
        Source.__post_init__(self)
        _require_within(f"{self.name}.seed_count", self.seed_count)


@dataclass(frozen=True, slots=True, kw_only=True)
class PopularitySource(Source):
    """The items that most users had."""

    name: ClassVar[str] = POPULARITY

    quota: int = QUOTAS[POPULARITY]
    weight: float = WEIGHTS[POPULARITY]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a request may set a parameter to; both ends belong to it."""

    __pydantic_config__: ClassVar = STRICT

    minimum: float
    maximum: float


def _default_parameters() -> dict[Name, Bounds]:
    bounds = {f"{source}.quota": Bounds(minimum=0, maximum=2_000) for source in QUOTAS}
    bounds |= {f"{source}.weight": Bounds(minimum=0, maximum=10) for source in QUOTAS}
    return bounds | {"rank": Bounds(minimum=0, maximum=1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """From sources to ranked candidates. Its defaults are what rankers are trained on."""

    __pydantic_config__: ClassVar = STRICT

    index: IndexSource = field(default_factory=IndexSource)
    item_to_item: ItemToItemSource = field(default_factory=ItemToItemSource)
    popularity: PopularitySource = field(default_factory=PopularitySource)
    candidate_count: int = CANDIDATE_COUNT  # Ranked where the request names no other number.
    rank: bool = True  # Whether a ranker is asked.
    parameters: dict[Name, Bounds] = field(default_factory=_default_parameters)

    def __post_init__(self) -> None:
        _require_within("candidate_count", self.candidate_count)
        for name, bounds in self.parameters.items():
            if name not in self._overridable():
                raise InputRefused(
                    f"parameters.{name}: no such parameter: {_listed(self._overridable())}"
                )
            for value in (bounds.minimum, bounds.maximum):
                _require_within(name, value, "parameters.")
            if bounds.minimum > bounds.maximum:
                raise InputRefused(f"parameters.{name}: the minimum exceeds the maximum")

    @property
    def sources(self) -> tuple[Source, ...]:
        """In the order of the columns that a ranker is given."""
        return (self.index, self.item_to_item, self.popularity)

    def overridden(self, parameters: Mapping[str, str]) -> "Pipeline":
        """With a request's parameters. Raises InvalidRequest."""
        pipeline = self
        for name, text in sorted(parameters.items()):
            bounds = self.parameters.get(name)
            if bounds is None:
                known = _listed(self.parameters) or "this pipeline declares none"
                raise InvalidRequest("parameters", f"{name[:100]!r}: no such parameter: {known}")
            pipeline = pipeline._with(name, _number(name, text, bounds))
        return pipeline

    def _with(self, name: str, value: float) -> "Pipeline":
        owner, _, key = name.rpartition(".")
        change: Any = {key: int(value) if key in _WHOLE else value}
        if owner:
            return replace(self, **{owner: replace(getattr(self, owner), **change)})
        return replace(self, rank=bool(value))

    @classmethod
    def _overridable(cls) -> tuple[str, ...]:
        shared = ("quota", "weight", "timeout_share")
        names = [f"{source}.{key}" for source in QUOTAS for key in shared]
        return (*names, f"{ITEM_TO_ITEM}.seed_count", "rank")


def pipeline_of(pipelines: Mapping[str, Pipeline], name: str) -> Pipeline:
    """The pipeline of this name; empty is the default one. Raises InvalidRequest."""
    wanted = name or DEFAULT
    if wanted in pipelines:
        return pipelines[wanted]
    if wanted == DEFAULT:
        return _DEFAULT_PIPELINE
    known = _listed({DEFAULT, *pipelines})
    raise InvalidRequest("pipeline", f"{name[:100]!r}: no such pipeline: {known}")


def _number(name: str, text: str, bounds: Bounds) -> float:
    try:
        value = int(text) if name.rpartition(".")[2] in _WHOLE else float(text)
    except ValueError:
        raise InvalidRequest("parameters", f"{name}: {text[:100]!r} is no number of its kind") from None
    if not bounds.minimum <= value <= bounds.maximum:  # Also refuses NaN.
        span = f"[{bounds.minimum:g}, {bounds.maximum:g}]"
        raise InvalidRequest("parameters", f"{name}: {text[:100]} is not in {span}")
    return value


def _require_within(name: str, value: float, prefix: str = "") -> None:
    least, most = _LIMITS[name.rpartition(".")[2]]
    if not least <= value <= most:  # Also refuses NaN.
        raise InputRefused(f"{prefix}{name}: {value:g} is not in [{least:g}, {most:g}]")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


_DEFAULT_PIPELINE = Pipeline()
