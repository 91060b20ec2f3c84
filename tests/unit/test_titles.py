"""Titles: found for the items that they belong to, doubted loudly where they seem to be others'."""

from pathlib import Path

import numpy as np
import pytest

from rangefinder.errors import InputRefused
from rangefinder.texts import TextColumn
from training.read.titles import read_titles

ITEMS = np.arange(10, 110, dtype=np.int64)


def write(folder: Path, lines: list[str], encoding: str = "utf-8") -> Path:
    path = folder / "titles"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


FORMATS: dict[str, tuple[str, str, str]] = {
    "movies.dat": ("", "{}::Amélie: {} (2001)::Comedy|Romance", "latin-1"),
    "u.item": ("", "{}|Amélie: {} (2001)|01-Jan-2001||http://x|0|1", "latin-1"),
    "CSV": ("", '{},"Amélie: {} (2001)"', "utf-8"),
    "CSV with header": ("genre,title,movieId", 'x,"Amélie: {1} (2001)",{0}', "utf-8"),
    "TSV": ("item_id\ttitle", "{}\tAmélie: {} (2001)", "utf-16"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_real_formats_are_recognised(name: str, tmp_path: Path) -> None:
    """Separator, header and encoding are found by looking; every item has its own title."""
    header, line, encoding = FORMATS[name]
    lines = [line.format(item, item) for item in ITEMS]
    titles = read_titles(write(tmp_path, [header, *lines], encoding), ITEMS, 0)
    assert [f"Amélie: {item} (2001)" for item in ITEMS] == titles.titles
    assert () == titles.warnings


def test_few_titles_are_warned_of(tmp_path: Path) -> None:
    """Below 99 % the counts are told; items without a title have none."""
    path = write(tmp_path, [f"{item},t{item}" for item in range(0, 108, 1) if item != 50])
    titles = read_titles(path, ITEMS, 0)
    assert ["", "t51"] == titles.titles[40:42]
    assert 1 == len(titles.warnings)
    assert "only 97 of 100 items (97.0%) have a title" in titles.warnings[0]


@pytest.mark.parametrize(("offset", "better"), [(0, 1), (2, 1)])
def test_a_neighbouring_offset_that_fits_better_is_named(
    tmp_path: Path, offset: int, better: int
) -> None:
    """Also where 99 % have a title: ids that are shifted by one nearly all exist."""
    path = write(tmp_path, [f"{item + 1},t{item}" for item in ITEMS])
    titles = read_titles(path, ITEMS, offset)
    assert 99 == sum(map(bool, titles.titles))
    (warning,) = titles.warnings
    assert f"--titles-id-offset {better} it would be 100" in warning

    right = read_titles(path, ITEMS, better)
    assert ([f"t{item}" for item in ITEMS], ()) == (right.titles, right.warnings)


def test_text_ids_have_titles_too(tmp_path: Path) -> None:
    """Matched by spelling; there is nothing to add an offset to."""
    items = TextColumn.of([b"a", b"b"])
    path = write(tmp_path, ["a,One", "b,Two"])
    assert ["One", "Two"] == read_titles(path, items, 0).titles
    with pytest.raises(InputRefused, match="--titles-id-offset goes with integer ids"):
        read_titles(path, items, 1)


def test_no_control_character_reaches_a_terminal(tmp_path: Path) -> None:
    """What moves a cursor becomes a space, and what is far too long is cut."""
    path = write(tmp_path, ["10,A\x1b[2JB", f"11,{'é' * 5000}"])
    titles = read_titles(path, ITEMS[:2], 0).titles
    assert ["A [2JB", "é" * 2048] == titles


REFUSED: dict[str, tuple[bytes, str]] = {
    "other ids": (b"1000,A\n1001,B\n", "no item has a title: these are titles of other ids$"),
    "shifted": (b"9,A\n", "other ids; with --titles-id-offset -1 it would be 1"),
    "empty": (b"", "the file is empty"),
    "blank": (b"\n\n", "nothing but blank lines"),
    "binary": (b"\0\1\2", "a binary file"),
    "no separator": (b"10\n11\n", "line 1: '10': expected an id and a title"),
    "ragged": (b"10,A\n\n11\n", "line 3: 1 field: expected an id and a title"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    """One line that names the file, and the line where one is wrong."""
    content, words = REFUSED[name]
    (tmp_path / "titles").write_bytes(content)
    with pytest.raises(InputRefused, match=words) as refused:
        read_titles(tmp_path / "titles", ITEMS, 0)
    assert str(refused.value).startswith(f"{tmp_path / 'titles'}: ")
    assert "\n" not in str(refused.value)
