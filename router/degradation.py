"""A rung of the degradation ladder, as it was taken: what the certificate says. Pure."""

from dataclasses import dataclass

from rangefinder.errors import RangefinderError

RANKING = "ranking"
FALLBACK = "fallback"
FEATURES = "features"  # Attributes of items, too.


@dataclass(frozen=True, slots=True)
class Degradation:
    """See rangefinder.v1.Degradation."""

    stage: str
    reason: str
    detail: str


def of_source(source: str, error: RangefinderError) -> Degradation:
    """A source that proposed nothing."""
    return Degradation(f"source:{source}", error.reason, error.message)


def of_ranking(error: RangefinderError) -> Degradation:
    """Candidates that nobody ranked."""
    return Degradation(RANKING, error.reason, f"items are in retrieval order: {error.message}")
