"""Which nodes are asked: one that keeps failing is left out, then probed and taken back. Pure."""

from dataclasses import dataclass

FAILURE_COUNT_MAX = 3
EJECTION_S = 1.0  # Times the number of ejections in a row.
EJECTION_S_MAX = 60.0

# A node that has said nothing for so long, while it owes an answer, counts as failing. Shorter
# deadlines of callers do not: they say more about the caller.
SILENCE_S = 0.1


@dataclass(slots=True, kw_only=True)
class NodeHealth:
    """Ejects a node after consecutive failures; one successful probe takes it back."""

    failure_count: int = 0
    ejection_count: int = 0
    probe_at_s: float = 0.0

    @property
    def is_ejected(self) -> bool:
        return self.failure_count >= FAILURE_COUNT_MAX

    def record_success(self) -> None:
        self.failure_count = 0
        self.ejection_count = 0

    def record_failure(self, now_s: float) -> None:
        self.failure_count += 1
        if self.failure_count == FAILURE_COUNT_MAX:
            self._eject(now_s)

    def record_probe(self, now_s: float, *, succeeded: bool) -> None:
        """A probe of an ejected node ended. Taken back, it has one failure left."""
        if succeeded:
            self.failure_count = FAILURE_COUNT_MAX - 1
        else:
            self._eject(now_s)

    def is_probe_due(self, now_s: float) -> bool:
        return self.is_ejected and now_s >= self.probe_at_s

    def _eject(self, now_s: float) -> None:
        self.ejection_count += 1
        self.probe_at_s = now_s + min(EJECTION_S * self.ejection_count, EJECTION_S_MAX)
