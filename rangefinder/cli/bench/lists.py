"""What is given separated by commas: loads, modes, rates. Each once, in the order given. Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum

from rangefinder.errors import InputRefused

IN_FLIGHT_MAX = 1_000

_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(%?)")


class Mode(StrEnum):
    """How queries are sent."""

    ECHO = "echo"  # An empty call to the yardstick.
    UNARY = "unary"  # One query a call.
    BATCH = "batch"  # Many queries a call.
    STREAM = "stream"  # Many queries a message, on one call.


class FaultKind(StrEnum):
    """What happens to a node."""

    STOP = "stop"  # It is there, and does nothing: SIGSTOP, then SIGCONT.
    KILL = "kill"  # It is gone, and `up` starts another one.
    SLOW = "slow"  # It answers 200 ms later.
    BLACKHOLE = "blackhole"  # Its connections are open, and everything on them is swallowed.

    @property
    def is_of_line(self) -> bool:
        """Whether it is the way to the node that is at fault."""
        return self in (FaultKind.SLOW, FaultKind.BLACKHOLE)


NO_FAULT = "none"


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second of an open loop; where it is a share, that part of what a closed one had."""

    value: float
    is_share: bool

    def at(self, peak: float) -> float:
        """Requests a second, where so many are the most."""
        return self.value * peak if self.is_share else self.value


def in_flight_of(text: str) -> tuple[int, ...]:
    """Such as 1,8,32. Raises InputRefused."""
    parts = _parts(text)
    numbers = [int(part) if re.fullmatch("[0-9]{1,6}", part) else 0 for part in parts]
    if not numbers or not all(1 <= number <= IN_FLIGHT_MAX for number in numbers):
        raise InputRefused(
            f"--in-flight {text!r}: give integers from 1 to {IN_FLIGHT_MAX}, such as 1,8,32"
        )
    return tuple(dict.fromkeys(numbers))


def modes_of(text: str) -> tuple[Mode, ...]:
    """Such as unary,stream. Raises InputRefused."""
    known = {str(mode): mode for mode in Mode if mode is not Mode.ECHO}
    if not text or not all(part in known for part in _parts(text)):
        raise InputRefused(f"--modes {text!r}: give some of {', '.join(known)}")
    return tuple(dict.fromkeys(known[part] for part in _parts(text)))


def rates_of(text: str) -> tuple[Rate, ...]:
    """Such as 500,75%. Raises InputRefused."""
    found = [_RATE.fullmatch(part) for part in _parts(text)]
    rates = [Rate(float(each[1]) / (100 if each[2] else 1), bool(each[2])) for each in found if each]
    if len(rates) < len(found) or not all(rate.value for rate in rates):
        raise InputRefused(f"--rates {text!r}: give requests a second, or shares such as 75%")
    return tuple(dict.fromkeys(rates))


def faults_of(text: str) -> tuple[FaultKind, ...]:
    """Such as slow,kill, or none. Raises InputRefused."""
    if text == NO_FAULT:
        return ()
    known = {str(kind): kind for kind in FaultKind}
    if not text or not all(part in known for part in _parts(text)):
        raise InputRefused(f"--fault {text!r}: give some of {', '.join(known)}, or {NO_FAULT}")
    return tuple(dict.fromkeys(known[part] for part in _parts(text)))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []
