"""Whether a router is asked: one that cannot answer is left out until a probe finds it ready. Pure.

Only a probe brings a router back, never an answer: one that drains still answers what it has read.
"""

from dataclasses import dataclass

# A router answers in part before a deadline passes. One that lets so many pass in a row, each of at
# least SILENCE_S, is frozen or cut off; shorter deadlines say more about the caller.
SILENT_COUNT_MAX = 3
SILENCE_S = 0.1

PROBE_DELAY_S_MIN, PROBE_DELAY_S_MAX = 0.1, 5.0


@dataclass(slots=True)
class Standing:
    """What a client thinks of one router."""

    is_away: bool = False
    silent_count: int = 0
    absence_count: int = 0  # Probes in vain, and times it was left out, since it last answered.

    def record_answer(self) -> None:
        """It said something, be it a refusal of the request."""
        self.silent_count = 0
        if not self.is_away:
            self.absence_count = 0

    def record_absence(self) -> bool:
        """It could not be reached, or is not ready; returns whether this is news."""
        is_news, self.is_away = not self.is_away, True
        return is_news

    def record_silence(self, waited_s: float) -> bool:
        """A deadline passed without a word; returns whether the router is left out from now on."""
        if waited_s < SILENCE_S:
            return False
        self.silent_count += 1
        return self.silent_count >= SILENT_COUNT_MAX and self.record_absence()

    def next_probe_s(self) -> float:
        """Seconds until the next probe; they double from one to the next, until it answers."""
        delay_s = PROBE_DELAY_S_MIN * 2.0 ** min(self.absence_count, 10)
        self.absence_count += 1
        return min(delay_s, PROBE_DELAY_S_MAX)

    def record_return(self) -> None:
        """A probe found it ready."""
        self.is_away, self.silent_count = False, 0
