"""What a run's figures are made into: ratios, verdicts, tables, pictures, comparisons."""

from dataclasses import replace
from pathlib import Path

import pytest

from rangefinder.cli.bench.figures import Figures
from rangefinder.cli.bench.lists import Mode
from rangefinder.cli.bench.plots import draw, require_plotting
from rangefinder.cli.bench.report import changes, compare, ratio_to_kernel, show, verdicts
from rangefinder.documents import from_json, to_json
from rangefinder.errors import InputRefused
from tests.unit.bench_figures import figures

PNG = b"\x89PNG\r\n"


def test_ratios_are_of_one_run() -> None:
    """The median is taken of each run's ratio, not of what was measured in different runs."""
    found = figures(stream_us=120)
    assert 1.2 == ratio_to_kernel(found.load(Mode.STREAM, 32), found.kernels)  # Of 1.2, 0.6, 1.2.


@pytest.mark.parametrize(
    ("changed", "met"),
    [
        ({}, [True, True, True, True]),
        ({"stream_us": 131.0}, [True, False, True, True]),
        ({"unary_us": 726.0}, [True, True, False, True]),
    ],
)
def test_verdicts_follow_the_targets(changed: dict[str, float], met: list[bool]) -> None:
    """Recall, CPU of batches against the index, of unary calls against empty ones, and latency."""
    loads = replace(figures(**changed), overloads=[], faults=[])
    assert met == [each.is_met for each in verdicts(loads)]


def test_what_was_not_measured_has_no_verdict() -> None:
    """Without the CPU of the servers there are recall and latency; without any load, recall alone."""
    unknown = verdicts(replace(figures(unary_us=None, stream_us=None), overloads=[], faults=[]))
    assert ["recall@10", "unary, one in flight: p50 / that of an empty call"] == [
        each.what for each in unknown
    ]
    assert 1 == len(verdicts(replace(figures(), closed=[], overloads=[], faults=[])))


def test_the_peak_is_that_of_unary() -> None:
    """The best median of single queries; None where only batches were sent."""
    found = figures()
    assert 2_000 == found.peak()
    batches = [each for each in found.closed if each.mode is Mode.STREAM]
    assert replace(found, closed=batches).peak() is None


def test_what_is_written_is_read_again() -> None:
    """Figures survive their file, to the last bit; a file of another kind is refused."""
    assert figures() == from_json(to_json(figures()), Figures, "file")
    with pytest.raises(InputRefused, match="file: "):
        from_json('{"format": 1}', Figures, "file")


def test_a_run_against_itself_has_not_changed() -> None:
    """Every ratio to itself is 1, and against a slower one each figure says so."""
    same = list(changes(figures(), figures()))
    assert len(same) == 6 + 4 * 4
    assert all(before == after for _, before, after in same)
    slower = {
        what: (before, after) for what, before, after in changes(figures(), figures(unary_us=900))
    }
    assert slower["unary, 32: CPU us/query"] == (600, 900)


def test_comparing_says_when_it_is_not_the_same_thing(capsys: pytest.CaptureFixture[str]) -> None:
    """Figures of another catalogue are compared, with a word of warning."""
    other = replace(figures(), setting=replace(figures().setting, items=5))
    compare(figures(), figures())
    assert "not the same thing" not in capsys.readouterr().out
    compare(figures(), other)
    assert "not the same thing" in capsys.readouterr().out


def test_tables_show_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """The yardsticks come first, then loads, the fault and the targets; failures are counted."""
    show(figures())
    text = capsys.readouterr().out
    order = ["echo", "kernel", "closed loop", "open loop", "overload", "one of 3 nodes", "targets"]
    assert order == sorted(order, key=text.index)
    assert "0 failed" in text
    assert "NO" not in text.split("targets")[1]


def test_figures_without_servers_and_faults_are_shown_too(capsys: pytest.CaptureFixture[str]) -> None:
    """What is not known is a dash, what was not measured is left out."""
    bare = replace(figures(unary_us=None, stream_us=None), open=[], widths=[], overloads=[], faults=[])
    silent = [replace(each, latency=None) for each in bare.closed]
    show(replace(bare, closed=silent))
    text = capsys.readouterr().out
    assert "open loop" not in text and "through" not in text
    assert "-" in text


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    """One for the widths, for the loads, for each kind of fault; none for what was not measured."""
    require_plotting()
    drawn = draw(figures(), tmp_path)
    names = [
        "recall-throughput",
        *(f"latency-{what}" for what in ("load", "slow", "blackhole", "kill")),
    ]
    assert [f"{name}.png" for name in names] == [each.name for each in drawn]
    assert all(each.read_bytes().startswith(PNG) for each in drawn)
    bare = replace(figures(), open=[], widths=[], overloads=[], faults=[])
    assert [] == draw(bare, tmp_path)
