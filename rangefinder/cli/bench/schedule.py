"""When requests are due, and what their times say: percentiles, rates, bins. Pure.

In an open loop latency counts from when a request was due, not from when it was sent: a generator that
is held up by a slow answer would else leave out what the slow moment cost all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from rangefinder.documents import STRICT

Times = npt.NDArray[np.float64]

WHOLE = 1.0


def due_times(rate: float, begin_s: float, end_s: float) -> Times:
    """Evenly spaced times, `rate` a second, with begin_s <= time < end_s."""
    count = max(int(np.ceil((end_s - begin_s) * rate)), 0)
    due: Times = begin_s + np.arange(count) / rate
    return due[due < end_s]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Requests that have ended: columns of one length, in the order in which they ended."""

    due_s: Times
    sent_s: Times
    ended_s: Times
    coverages: Times  # NaN: failed.
    reasons: npt.NDArray[np.str_]  # Why; empty: answered.

    @classmethod
    def together(cls, parts: Sequence["Samples"]) -> "Samples":
        """Those of several generators."""
        return cls(
            due_s=np.concatenate([part.due_s for part in parts]),
            sent_s=np.concatenate([part.sent_s for part in parts]),
            ended_s=np.concatenate([part.ended_s for part in parts]),
            coverages=np.concatenate([part.coverages for part in parts]),
            reasons=np.concatenate([part.reasons for part in parts]),
        )

    @property
    def took_ms(self) -> Times:
        took: Times = (self.ended_s - self.due_s) * 1000
        return took

    @property
    def is_answered(self) -> npt.NDArray[np.bool_]:
        return ~np.isnan(self.coverages)

    @property
    def failed(self) -> int:
        return int((~self.is_answered).sum())

    @property
    def failures(self) -> dict[str, int]:
        """How many failed, by reason."""
        reasons, counts = np.unique(self.reasons[~self.is_answered], return_counts=True)
        return dict(zip(reasons.tolist(), counts.tolist(), strict=True))

    @property
    def is_whole(self) -> npt.NDArray[np.bool_]:
        """Answered, from the whole catalogue."""
        return self.coverages >= WHOLE

    @property
    def partial(self) -> int:
        """Answers that cover less than the whole catalogue."""
        return int((self.coverages < WHOLE).sum())

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Samples":
        return Samples(
            due_s=self.due_s[chosen],
            sent_s=self.sent_s[chosen],
            ended_s=self.ended_s[chosen],
            coverages=self.coverages[chosen],
            reasons=self.reasons[chosen],
        )

    def ended_within(self, begin_s: float, end_s: float) -> "Samples":
        return self.where((self.ended_s >= begin_s) & (self.ended_s < end_s))

    def due_within(self, begin_s: float, end_s: float) -> "Samples":
        return self.where((self.due_s >= begin_s) & (self.due_s < end_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds that answers took."""

    __pydantic_config__: ClassVar = STRICT

    p50: float
    p90: float
    p95: float
    p99: float
    p99_9: float

    @classmethod
    def of(cls, samples: Samples) -> "Latency | None":
        """Of those that were answered; None where none was."""
        return cls.of_times(samples.took_ms[samples.is_answered])

    @classmethod
    def of_times(cls, took_ms: Times) -> "Latency | None":
        """Of milliseconds; None where there are none."""
        if not len(took_ms):
            return None
        p50, p90, p95, p99, p99_9 = np.percentile(took_ms, [50, 90, 95, 99, 99.9]).tolist()
        return cls(p50=p50, p90=p90, p95=p95, p99=p99, p99_9=p99_9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Requests that were due in one short time."""

    __pydantic_config__: ClassVar = STRICT

    start_s: float  # From the beginning of the load.
    requests: int
    failed: int
    p50_ms: float | None  # None: no answer.
    p99_ms: float | None
    coverage: float | None  # Mean of the answers.


def bins(samples: Samples, begin_s: float, end_s: float, width_s: float) -> list[Bin]:
    """Requests by when they were due, in bins of one width from begin_s to end_s."""
    count = max(round((end_s - begin_s) / width_s), 1)
    places = np.floor((samples.due_s - begin_s) / width_s).astype(np.int64)
    return [_bin(samples.where(places == place), place * width_s) for place in range(count)]


def _bin(samples: Samples, start_s: float) -> Bin:
    answered = samples.where(samples.is_answered)
    took_ms = answered.took_ms
    p50, p99 = np.percentile(took_ms, [50, 99]).tolist() if len(took_ms) else (None, None)
    return Bin(
        start_s=round(start_s, 6),
        requests=len(samples.due_s),
        failed=samples.failed,
        p50_ms=p50,
        p99_ms=p99,
        coverage=float(answered.coverages.mean()) if len(took_ms) else None,
    )
