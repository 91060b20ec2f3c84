"""Embeddings and ids from NumPy files and text files; each fault in one line with file and row."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefinder.errors import InputRefused
from rangefinder.keys import IdKind
from rangefinder.texts import TextColumn
from shard_server.build import npy_source
from shard_server.build.npy_source import NpySource, read_ids, read_matrix
from shard_server.build.source import Ids

Prepare = Callable[[Path], object]


def refusal(act: Callable[[], object], path: Path) -> str:
    """What follows the name of the file in the one line of a refusal."""
    with pytest.raises(InputRefused) as refused:
        act()
    message = str(refused.value)
    assert 1 == len(message.splitlines())
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def saved(array: npt.NDArray[np.generic]) -> Prepare:
    return lambda path: np.save(path, array)


def content(written: bytes) -> Prepare:
    return lambda path: path.write_bytes(written)


def cut(path: Path) -> None:
    np.save(path, np.ones((5, 3), np.float32))
    path.write_bytes(path.read_bytes()[:-1])


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", b"")


def header(text: str) -> Prepare:
    head = text.encode()
    return content(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(64))


NO_MATRIX: dict[str, tuple[Prepare, str]] = {
    "missing": (lambda path: None, "no such file or directory"),
    "a folder": (Path.mkdir, "not a file"),
    "empty": (Path.touch, "the file is empty"),
    "text": (content(b"1 2 3\n4 5 6\n"), "not a whole .npy file: "),
    "magic alone": (content(b"\x93NUMPY"), "not a whole .npy file: "),
    "newer format": (content(b"\x93NUMPY\x09\x00\x10\x00" + bytes(99)), "not a whole .npy file: "),
    "header cut": (content(b"\x93NUMPY\x01\x00\x76\x00{'descr"), "not a whole .npy file: "),
    "header open": (header("{'descr': '<f4', 'shape': (3, 2), "), "not a whole .npy file: "),
    "header quote": (header("'''"), "not a whole .npy file: "),
    "header huge": (header("(" * 20_000), "not a whole .npy file: "),
    "header type": (
        header("{'descr': ('<f4',), 'fortran_order': False, 'shape': (3, 2)}"),
        "not a whole .npy file: ",
    ),
    "header size": (
        header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**23}, 2)}}"),
        "not a whole .npy file: ",
    ),
    "rows cut": (cut, "not a whole .npy file: "),
    "archive": (archive, "not a whole .npy file: "),
    "archive cut": (content(b"PK\x03\x04 and no more"), "not a whole .npy file: "),
    "objects": (saved(np.array([[None]])), "not a whole .npy file: "),
    "int64": (saved(np.ones((2, 2), np.int64)), "embeddings are int64: give float32"),
    "complex": (saved(np.ones((2, 2), np.complex64)), "embeddings are complex64: give float32"),
    "bool": (saved(np.ones((2, 2), np.bool_)), "embeddings are bool: give float32"),
    "texts": (saved(np.array([["a"]])), "embeddings are "),
    "column": (saved(np.ones(3, np.float32)), r"shape (3,): give (items, dimension)"),
    "cube": (saved(np.ones((2, 2, 2), np.float32)), r"shape (2, 2, 2): give"),
    "no rows": (saved(np.ones((0, 2), np.float32)), r"shape (0, 2): give"),
    "no values": (saved(np.ones((2, 0), np.float32)), r"shape (2, 0): give"),
}


@pytest.mark.parametrize("case", NO_MATRIX)
def test_a_file_that_is_no_matrix_is_refused(tmp_path: Path, case: str) -> None:
    """Whatever is not a whole matrix of numbers is refused in one line that names the file."""
    prepare, why = NO_MATRIX[case]
    path = tmp_path / "x.npy"
    prepare(path)
    assert refusal(lambda: read_matrix(path), path).startswith(why)


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")  # Headers of Python 2.
@given(place=st.integers(0, 127), changed=st.binary(min_size=1, max_size=3))
@example(place=6, changed=b"\x02\x00\x80")
def test_no_header_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, place: int, changed: bytes
) -> None:
    """A header with any few bytes changed is read or refused, never anything else."""
    path = tmp_path_factory.getbasetemp() / "changed.npy"
    np.save(path, np.ones((3, 2), np.float32))
    whole = bytearray(path.read_bytes())
    whole[place : place + len(changed)] = changed
    path.write_bytes(whole)
    try:
        assert 2 == read_matrix(path).ndim
    except InputRefused as refused:
        assert 1 == len(str(refused).splitlines())


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", ">f4", ">f8", "int8", "uint8", "int16", "uint16"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_of_any_type_become_float32(tmp_path: Path, dtype: str, order: str) -> None:
    """Rows of every type that float32 holds, in any byte order and layout, keep their values."""
    rows = np.arange(12).reshape(4, 3).astype(dtype)
    np.save(tmp_path / "x.npy", np.asarray(rows, order=order))  # type: ignore[call-overload]
    source = NpySource.open(tmp_path / "x.npy", None, None)
    (block,) = source.blocks()
    assert (4, 3, None) == (source.row_count, source.dimension, source.attribute_schema)
    assert np.float32 == block.rows.dtype
    assert np.arange(12).reshape(4, 3).tolist() == block.rows.tolist()
    assert block.rows.flags.c_contiguous


def test_rows_come_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows come once, in their order, and never more than a block of them at a time."""
    monkeypatch.setattr(npy_source, "BLOCK_ROWS", 4)
    rows = np.arange(18, dtype=np.float32).reshape(9, 2)
    np.save(tmp_path / "x.npy", rows)
    blocks = [block.rows for block in NpySource.open(tmp_path / "x.npy", None, None).blocks()]
    assert [4, 4, 1] == [len(block) for block in blocks]
    assert rows.tolist() == np.concatenate(blocks).tolist()


def test_without_ids_row_numbers_are_ids(tmp_path: Path) -> None:
    """A matrix alone is a catalogue whose ids are its row numbers."""
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    ids = NpySource.open(tmp_path / "x.npy", None, None).ids()
    assert isinstance(ids, np.ndarray)
    assert [0, 1, 2] == ids.tolist()


@pytest.mark.parametrize("count", [2, 4])
def test_ids_are_as_many_as_rows(tmp_path: Path, count: int) -> None:
    """One id too few or too many is refused with both numbers."""
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    np.save(tmp_path / "ids.npy", np.arange(count))
    source = NpySource.open(tmp_path / "x.npy", tmp_path / "ids.npy", None)
    why = refusal(source.ids, tmp_path / "ids.npy")
    assert f"{count} ids for the 3 rows of {tmp_path / 'x.npy'}" == why


def values(ids: Ids) -> list[int] | list[bytes]:
    return list(ids) if isinstance(ids, TextColumn) else ids.tolist()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([-(2**63), 2**63 - 1]), [-(2**63), 2**63 - 1]),
        (np.array([0, 255], np.uint8), [0, 255]),
        (np.array([2**63 - 1], np.uint64), [2**63 - 1]),
        (np.array([-5, 7], ">i4"), [-5, 7]),
        (np.array(["a", "日本"]), [b"a", "日本".encode()]),
        (np.array([b"a", "é".encode()]), [b"a", "é".encode()]),
        (np.array(["x" * 256, "é" * 128]), [b"x" * 256, "é".encode() * 128]),
    ],
)
def test_ids_of_arrays(tmp_path: Path, array: npt.NDArray[np.generic], expected: list[object]) -> None:
    """Integers of any width and texts of either kind are read as they are."""
    np.save(tmp_path / "ids.npy", array)
    assert expected == values(read_ids(tmp_path / "ids.npy", None))


NO_IDS: dict[str, tuple[npt.NDArray[np.generic], str]] = {
    "float": (np.array([1.0]), "ids are float64: give integers or text"),
    "bool": (np.array([True]), "ids are bool: give integers or text"),
    "date": (np.array(["2020-01-01"], "M8[D]"), "ids are datetime64[D]: give integers or text"),
    "matrix": (np.ones((2, 2), np.int64), "shape (2, 2): ids are one column"),
    "uint64": (np.array([1, 2**63], np.uint64), f"row 1: {2**63} does not fit into an int64"),
    "empty text": (np.array(["a", ""]), "row 1: the id is empty"),
    "long text": (np.array(["a", "é" * 128 + "x"]), "row 1: the id is over 256 bytes"),
    "half a pair": (np.array(["a", "b", "\ud800"]), "row 2: the id is not UTF-8"),
    "latin-1": (np.array([b"a", b"\xe9"]), "row 1: the id is not UTF-8"),
}


@pytest.mark.parametrize("case", NO_IDS)
def test_an_array_that_is_no_ids_is_refused(tmp_path: Path, case: str) -> None:
    """Other types, shapes and values are refused; where one row is at fault, it is named."""
    array, why = NO_IDS[case]
    path = tmp_path / "ids.npy"
    np.save(path, array)
    assert why == refusal(lambda: read_ids(path, None), path)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"a\nb", [b"a", b"b"]),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        ("é\n日本\n".encode(), ["é".encode(), "日本".encode()]),
        (b" a b \n\tc", [b" a b ", b"\tc"]),
        (b"1\n01\n", [b"1", b"01"]),
        ("a\u2028b\nc\x0bd\n".encode(), ["a\u2028b".encode(), b"c\x0bd"]),
        (b"x" * 256 + b"\n", [b"x" * 256]),
        (b"\xef\xbb\xbfa\nb\n", [b"a", b"b"]),  # The mark that some editors put first.
    ],
)
def test_ids_of_lines(tmp_path: Path, written: bytes, expected: list[bytes]) -> None:
    """One id a line, byte for byte, with line ends of either kind, the last one optional."""
    (tmp_path / "ids.txt").write_bytes(written)
    assert expected == values(read_ids(tmp_path / "ids.txt", None))
    assert expected == values(read_ids(tmp_path / "ids.txt", IdKind.TEXT))


@pytest.mark.parametrize("kind", [IdKind.INTEGER, IdKind.ORDERED])
def test_integers_of_lines(tmp_path: Path, kind: IdKind) -> None:
    """In an integer cluster each line is an int64, both ends of the range included."""
    (tmp_path / "ids.txt").write_bytes(b"-9223372036854775808\r\n0\r\n9223372036854775807\r\n")
    assert [-(2**63), 0, 2**63 - 1] == values(read_ids(tmp_path / "ids.txt", kind))


@pytest.mark.parametrize(
    ("written", "kind", "why"),
    [
        (b"a\n\nb\n", IdKind.TEXT, "row 1: the id is empty"),
        (b"\n", IdKind.TEXT, "row 0: the id is empty"),
        (b"a\n\n", IdKind.TEXT, "row 1: the id is empty"),
        (b"", IdKind.TEXT, "the file is empty"),
        (b"a\n\xff\n", IdKind.TEXT, "row 1: the id is not UTF-8"),
        (b"a\n" + b"x" * 257, IdKind.TEXT, "row 1: the id is over 256 bytes"),
        (b"1\nsofa\n", IdKind.INTEGER, "row 1: 'sofa' is no int64"),
        (b"1\n\n2\n", IdKind.INTEGER, "row 1: '' is no int64"),
        (b"1_000\n", IdKind.INTEGER, "row 0: '1_000' is no int64"),
        (b"1\n1.5\n", IdKind.ORDERED, "row 1: '1.5' is no int64"),
        (b"9223372036854775808\n", IdKind.ORDERED, "row 0: '9223372036854775808' is no int64"),
        (b"1\n" + b"9" * 5_000, IdKind.INTEGER, "row 1: '" + "9" * 40 + "' is no int64"),
        (b"\xff\n", IdKind.INTEGER, "row 0: '\ufffd' is no int64"),
    ],
)
def test_a_line_that_is_no_id_is_refused(
    tmp_path: Path, written: bytes, kind: IdKind, why: str
) -> None:
    """A line that is empty, too long, no UTF-8 or no int64 is refused with its row."""
    path = tmp_path / "ids.txt"
    path.write_bytes(written)
    assert refusal(lambda: read_ids(path, kind), path).startswith(why)


@pytest.mark.parametrize("name", ["ids.txt", "ids.npy"])
def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where the rights are missing, that is what the one line says."""

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(arguments[0]))

    path = tmp_path / name
    path.write_bytes(b"1\n2\n")
    # A superuser may open every real file.
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    assert "permission denied" == refusal(lambda: read_ids(path, None), path)
