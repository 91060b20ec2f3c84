"""What is given to `rangefinder bench` separated by commas."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.cli.bench.lists import (
    FaultKind,
    Mode,
    Rate,
    faults_of,
    in_flight_of,
    modes_of,
    rates_of,
)
from rangefinder.errors import InputRefused


def test_lists_are_read_in_their_order() -> None:
    """Each value once, blanks around it do not matter."""
    assert (8, 1, 32) == in_flight_of("8, 1,32,8")
    assert (Mode.STREAM, Mode.UNARY) == modes_of("stream, unary,stream")
    assert (Rate(500, False), Rate(0.75, True)) == rates_of("500, 75%,500")
    assert () == rates_of("")
    assert () == faults_of("none")
    assert (FaultKind.SLOW, FaultKind.KILL) == faults_of("slow,kill, slow")


@given(st.floats(1, 1e6), st.floats(0.01, 2))
def test_a_share_is_of_the_peak(peak: float, share: float) -> None:
    """A share is that part of the peak; a rate is what it says."""
    assert Rate(share, True).at(peak) == share * peak
    assert Rate(7.5, False).at(peak) == 7.5


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((in_flight_of, text) for text in ("", "0", "1001", "x", "1,,2", "-1", "1.5", "١", "9" * 99)),
        *((modes_of, text) for text in ("", "x", "echo", "unary,", "UNARY")),
        *((faults_of, text) for text in ("", "x", "none,slow", "slow,", "NONE")),
        *((rates_of, text) for text in ("0", "-5", "x", "5%%", "%", "1e3", "nan", ",", "0%", "9" * 99)),
    ],
)
def test_what_is_no_list_is_refused(parse: Callable[[str], object], text: str) -> None:
    """Every other text is refused with the option's name and what would be right."""
    with pytest.raises(InputRefused, match=r"--(in-flight|modes|fault|rates) .*give "):
        parse(text)
