"""How many batches are out: more only where that helps, and back again."""

import time
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from rangefinder.telemetry.process import busy_s
from router.window import BUSY_SHARE_MAX, PERIOD_S, WINDOW_MAX, Window


@dataclass(slots=True)
class Processor:
    """How long the worker has been busy."""

    busy_s: float = 3.0

    def window(self) -> Window:
        return Window(7.0, lambda: self.busy_s)


def lived(
    processor: Processor,
    window: Window,
    periods: int,
    *,
    queue: int,
    waiting: int,
    busy: float,
    node_share: float = 0.2,
) -> list[int]:
    """The sizes over some periods that are all alike."""
    sizes, began_s = [], window._began_s
    for period in range(1, periods + 1):
        window.record(queue_length=queue, node_s=0.01 * node_share, answer_s=0.01, waiting_rows=waiting)
        processor.busy_s += PERIOD_S * 1.01 * busy
        window.adapt(began_s + period * PERIOD_S * 1.01)
        sizes.append(window.size)
    return sizes


def test_it_grows_while_queries_wait_for_idle_nodes() -> None:
    """By one a period, to its bound."""
    expected = [min(1 + period, WINDOW_MAX) for period in range(1, 13)]
    processor = Processor()
    window = processor.window()
    assert expected == lived(processor, window, 12, queue=0, waiting=5, busy=0.2)


@given(st.integers(0, 20), st.integers(0, 20), st.floats(0, 1))
def test_it_stays_within_bounds(queue: int, waiting: int, busy: float) -> None:
    """Whatever happens; and one batch at a time is where it rests."""
    processor = Processor()
    window = processor.window()
    lived(processor, window, 20, queue=0, waiting=1, busy=0.0)
    for size in lived(processor, window, 20, queue=queue, waiting=waiting, busy=busy):
        assert 1 <= size <= WINDOW_MAX
    assert lived(processor, window, WINDOW_MAX, queue=1, waiting=waiting, busy=busy)[-1] == 1


def test_it_goes_back_where_more_batches_do_not_help() -> None:
    """Where nodes have queues or are at work, nobody waits, or the worker itself is busy."""
    cases = ((1, 5, 0.2, 0.2), (0, 0, 0.2, 0.2), (0, 5, BUSY_SHARE_MAX + 0.1, 0.2), (0, 5, 0.2, 0.6))
    for queue, waiting, busy, node_share in cases:
        processor = Processor()
        window = processor.window()
        lived(processor, window, 4, queue=0, waiting=5, busy=0.2)
        assert 1 < window.size
        sizes = lived(
            processor, window, 10, queue=queue, waiting=waiting, busy=busy, node_share=node_share
        )
        assert [1] * 3 == sizes[-3:]


def test_a_short_time_changes_nothing() -> None:
    """Of several batches within a period the worst counts, at its end."""
    processor = Processor()
    window = processor.window()
    for step in range(9):
        window.record(queue_length=int(step == 4), node_s=0.0, answer_s=0.001, waiting_rows=3)
        window.adapt(7.0 + PERIOD_S * step / 10)
        assert 1 == window.size
    window.adapt(7.0 + PERIOD_S * 1.1)
    assert 1 == window.size


def test_waiting_for_a_processor_is_being_busy() -> None:
    """What a window goes by never goes back, and grows while this process works."""
    before_s, began_s = busy_s(), time.process_time()
    while time.process_time() - began_s < 0.02:
        pass
    assert busy_s() - before_s >= 0.02
