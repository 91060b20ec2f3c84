"""How many batches are out: more only where that helps, and back again."""

from hypothesis import given
from hypothesis import strategies as st

from router.window import BUSY_SHARE_MAX, PERIOD_S, WINDOW_MAX, Window


def lived(window: Window, periods: int, *, queue: int, waiting: int, busy: float) -> list[int]:
    """The sizes over some periods that are all alike."""
    sizes = []
    began_s, began_cpu_s = window._began_s, window._began_cpu_s
    for period in range(1, periods + 1):
        window.record(queue_length=queue, waiting_rows=waiting)
        passed_s = period * PERIOD_S * 1.01
        window.adapt(began_s + passed_s, began_cpu_s + passed_s * busy)
        sizes.append(window.size)
    return sizes


def test_it_grows_while_queries_wait_for_idle_nodes() -> None:
    """By one a period, to its bound."""
    expected = [min(1 + period, WINDOW_MAX) for period in range(1, 13)]
    window = Window(7.0, 3.0)
    assert expected == lived(window, 12, queue=0, waiting=5, busy=0.2)


@given(st.integers(0, 20), st.integers(0, 20), st.floats(0, 1))
def test_it_stays_within_bounds(queue: int, waiting: int, busy: float) -> None:
    """Whatever happens; and one batch at a time is where it rests."""
    window = Window(7.0, 3.0)
    lived(window, 20, queue=0, waiting=1, busy=0.0)
    for size in lived(window, 20, queue=queue, waiting=waiting, busy=busy):
        assert 1 <= size <= WINDOW_MAX
    assert lived(window, WINDOW_MAX, queue=1, waiting=waiting, busy=busy)[-1] == 1


def test_it_goes_back_where_more_batches_do_not_help() -> None:
    """Where nodes have queues, nobody waits, or the worker itself is busy."""
    for queue, waiting, busy in ((1, 5, 0.2), (0, 0, 0.2), (0, 5, BUSY_SHARE_MAX + 0.1)):
        window = Window(7.0, 3.0)
        lived(window, 4, queue=0, waiting=5, busy=0.2)
        assert 1 < window.size
        assert [1] * 3 == lived(window, 10, queue=queue, waiting=waiting, busy=busy)[-3:]


def test_a_short_time_changes_nothing() -> None:
    """Of several batches within a period the worst counts, at its end."""
    window = Window(7.0, 3.0)
    for step in range(9):
        window.record(queue_length=int(step == 4), waiting_rows=3)
        window.adapt(7.0 + PERIOD_S * step / 10, 3.0)
        assert 1 == window.size
    window.adapt(7.0 + PERIOD_S * 1.1, 3.0)
    assert 1 == window.size
