"""Load on a cluster from one process: so many requests in flight, or so many a second.

Times are of the monotonic clock, which all processes of a machine share.
"""

import asyncio
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread

import numpy as np
import numpy.typing as npt

from rangefinder.cli.bench.calls import Asked, Caller, connected
from rangefinder.cli.bench.schedule import Samples, due_times
from rangefinder.errors import RangefinderError

_READY_S_MAX = 10.0

# A server that refuses at once is not asked again at once.
_AFTER_FAILURE_S = 0.01

# The thread that keeps the time gets the interpreter soon, and not after Python's own 5 ms.
_SWITCH_S = 0.0002


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """What one generator does, from begin_s to end_s.

    `rate` None is a closed loop: whenever one of in_flight answers is there, the next request is sent.
    Else it is an open loop: requests are sent when they are due, whatever became of those before;
    in_flight says nothing.
    """

    asked: Asked
    begin_s: float
    end_s: float
    in_flight: int
    rate: float | None
    generator: int  # Which of `generators`: they take turns.
    generators: int


@dataclass(slots=True, kw_only=True)
class _Recorder:
    """What became of every request, as it ends."""

    caller: Caller
    due_s: list[float] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)
    coverages: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    async def send(self, number: int, due_s: float, sent_s: float) -> bool:
        """Whether there was an answer."""
        coverage, reason = math.nan, ""
        try:
            coverage = await self.caller.call(number)
        except RangefinderError as error:
            reason = error.reason
        self.ended_s.append(time.monotonic())
        self.due_s.append(due_s)
        self.sent_s.append(sent_s)
        self.coverages.append(coverage)
        self.reasons.append(reason)
        return not reason

    def samples(self) -> Samples:
        return Samples(
            due_s=np.array(self.due_s),
            sent_s=np.array(self.sent_s),
            ended_s=np.array(self.ended_s),
            coverages=np.array(self.coverages),
            reasons=np.array(self.reasons, np.str_),
        )


async def generate(order: LoadOrder) -> Samples:
    """Make the load, and return what became of every request. Raises RangefinderError."""
    async with connected(order.asked, _READY_S_MAX) as caller:
        recorder = _Recorder(caller=caller)
        await asyncio.sleep(order.begin_s - time.monotonic())
        async with asyncio.TaskGroup() as group:
            if order.rate is None:
                for number in range(order.in_flight):
                    group.create_task(_one_after_the_other(order, recorder, number), name=f"{number}")
            else:
                await _when_due(order, recorder, group)
    return recorder.samples()


async def _one_after_the_other(order: LoadOrder, recorder: _Recorder, place: int) -> None:
    number = place
    while (now_s := time.monotonic()) < order.end_s:
        if not await recorder.send(number, now_s, now_s):
            await asyncio.sleep(_AFTER_FAILURE_S)
        number += order.in_flight


async def _when_due(order: LoadOrder, recorder: _Recorder, group: asyncio.TaskGroup) -> None:
    assert order.rate is not None
    due_s = due_times(order.rate, order.begin_s, order.end_s)[order.generator :: order.generators]
    loop = asyncio.get_running_loop()

    def send(number: int) -> None:
        at_s = float(due_s[number])
        group.create_task(recorder.send(number, at_s, time.monotonic()), name=f"{number}")

    with _Pacer(due_s, lambda number: loop.call_soon_threadsafe(send, number)) as pacer:
        await asyncio.to_thread(pacer.join)  # What it told the loop comes before its end.


class _Pacer:
    """A thread that tells of each time as it comes: a timer of the loop has milliseconds alone."""

    def __init__(self, due_s: npt.NDArray[np.float64], tell: Callable[[int], object]) -> None:
        self._due_s, self._tell = due_s.tolist(), tell
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="pacer", daemon=True)
        self._switch_s = sys.getswitchinterval()

    def __enter__(self) -> "_Pacer":
        sys.setswitchinterval(_SWITCH_S)
        self._thread.start()
        return self

    def __exit__(self, *of_block: object) -> None:
        self._stopped.set()
        self._thread.join()
        sys.setswitchinterval(self._switch_s)

    def join(self) -> None:
        """Return when every time has come."""
        self._thread.join()

    def _run(self) -> None:
        for number, due_s in enumerate(self._due_s):
            if (left_s := due_s - time.monotonic()) > 0:
                time.sleep(left_s)
            if self._stopped.is_set():
                return
            self._tell(number)
