"""Items from Parquet; each fault in one line with file and row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rangefinder.errors import InputRefused
from rangefinder.texts import TextColumn
from shard_server.build import parquet_source
from shard_server.build.parquet_source import ParquetSource

IDS = pa.array([11, 12, 13])
VECTORS = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32()))

# Bytes that no writer of text would write: the second of them is no UTF-8.
_OFFSETS = pa.py_buffer(np.array([0, 1, 2, 3], np.int32).tobytes())
NO_UTF8 = pa.Array.from_buffers(pa.string(), 3, [None, _OFFSETS, pa.py_buffer(b"a\xffc")])


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"id": IDS, "embedding": VECTORS, **columns}), path)
    return path


def read_all(path: Path) -> tuple[list[Any], list[list[float]], list[dict[str, Any]]]:
    """Ids, rows and attributes of a file, as a build reads them."""
    source = ParquetSource.open(path)
    schema = source.attribute_schema
    ids = source.ids()
    blocks = list(source.blocks())
    attributes: list[dict[str, Any]] = []
    for block in blocks:
        if block.attributes is not None:
            assert schema == block.attributes.schema
            attributes += block.attributes.to_pylist()
    rows = np.concatenate([block.rows for block in blocks])
    assert np.float32 == rows.dtype
    assert source.row_count == len(rows)
    values = list(ids) if isinstance(ids, TextColumn) else ids.tolist()
    return values, rows.tolist(), attributes


def refusal(act: Callable[[], object], path: Path) -> str:
    with pytest.raises(InputRefused) as refused:
        act()
    message = str(refused.value)
    assert 1 == len(message.splitlines())
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_ids_and_rows(tmp_path: Path) -> None:
    """Columns id and embedding are all that is needed; then there are no attributes."""
    assert ([11, 12, 13], VECTORS.to_pylist(), []) == read_all(write(tmp_path / "x.parquet"))
    assert ParquetSource.open(tmp_path / "x.parquet").attribute_schema is None


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([-(2**63), 0, 2**63 - 1]), [-(2**63), 0, 2**63 - 1]),
        (pa.array([1, 2, 2**63 - 1], pa.uint64()), [1, 2, 2**63 - 1]),
        (pa.array([1, 2, 3], pa.int8()), [1, 2, 3]),
        (pa.array(["a", "é", "日本"]), [b"a", "é".encode(), "日本".encode()]),
        (pa.array(["a", "b", "c"], pa.large_string()), [b"a", b"b", b"c"]),
        (pa.array(["a", "b", "c"]).dictionary_encode(), [b"a", b"b", b"c"]),
    ],
)
def test_ids_of_any_type(tmp_path: Path, column: pa.Array, expected: list[object]) -> None:
    """Integers of any width and texts of any encoding are ids."""
    assert expected == read_all(write(tmp_path / "x.parquet", id=column))[0]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 2),
        pa.list_(pa.float64()),
        pa.list_(pa.float16()),
    ],
)
def test_embeddings_of_any_float(tmp_path: Path, kind: pa.DataType) -> None:
    """Lists of floats of any width, of fixed size or not, become float32 rows."""
    column = pa.array(VECTORS.to_pylist(), kind)
    assert VECTORS.to_pylist() == read_all(write(tmp_path / "x.parquet", embedding=column))[1]


def test_attributes_are_typed(tmp_path: Path) -> None:
    """Numbers become doubles, texts and lists of texts stay; what is missing is null."""
    path = write(
        tmp_path / "x.parquet",
        price=pa.array([1, None, 2**53]),
        weight=pa.array([0.5, 1.5, None], pa.float32()),
        is_new=pa.array([True, None, False]),
        title=pa.array(["a", None, "日本"]),
        colour=pa.array(["red", "red", None]).dictionary_encode(),
        tags=pa.array([["x", "y"], [], None]),
    )
    names = ("price", "weight", "is_new", "title", "colour", "tags")
    expected: list[tuple[object, ...]] = [
        (1.0, 0.5, True, "a", "red", ["x", "y"]),
        (None, 1.5, None, None, "red", []),
        (2.0**53, None, False, "日本", None, None),
    ]
    assert [dict(zip(names, row, strict=True)) for row in expected] == read_all(path)[2]


def test_fields_of_structs_are_attributes(tmp_path: Path) -> None:
    """The fields of a struct, nested ones too, stand beside the other columns; a null has none."""
    attributes = pa.array(
        [{"title": "a", "size": {"x": 1, "y": 2}}, None, {"title": None, "size": None}]
    )
    path = write(tmp_path / "x.parquet", attributes=attributes, price=pa.array([1, 2, 3]))
    assert [
        {"title": "a", "x": 1.0, "y": 2.0, "price": 1.0},
        {"title": None, "x": None, "y": None, "price": 2.0},
        {"title": None, "x": None, "y": None, "price": 3.0},
    ] == read_all(path)[2]


def test_blocks_join_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in blocks, over row groups of another size, the items are the same in the same order."""
    monkeypatch.setattr(parquet_source, "BLOCK_ROWS", 7)
    count = 40
    columns = {
        "id": pa.array(range(count)),
        "embedding": pa.array([[float(row)] for row in range(count)], pa.list_(pa.float32())),
        "tags": pa.array([[str(row)] * (row % 3) if row % 5 else None for row in range(count)]),
        "inner": pa.array([{"n": row} if row % 4 else None for row in range(count)]),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=11)
    ids, rows, attributes = read_all(tmp_path / "x.parquet")
    assert list(range(count)) == ids
    assert [[float(row)] for row in range(count)] == rows
    assert columns["tags"].to_pylist() == [each["tags"] for each in attributes]
    assert [float(row) if row % 4 else None for row in range(count)] == [
        each["n"] for each in attributes
    ]


def test_a_column_is_not_taken_for_one_whose_name_begins_like_it(tmp_path: Path) -> None:
    """Columns `id.old` and `embedding.old` are attributes, wherever they stand."""
    names = ["id.old", "embedding.old", "embedding", "id"]
    old = pa.array([7, 8, 9])
    pq.write_table(pa.Table.from_arrays([old, old, VECTORS, IDS], names=names), tmp_path / "x.parquet")
    ids, rows, attributes = read_all(tmp_path / "x.parquet")
    assert ([11, 12, 13], VECTORS.to_pylist()) == (ids, rows)
    assert {"id.old": 7.0, "embedding.old": 7.0} == attributes[0]


def floats(*rows: list[float | None] | None) -> pa.Array:
    return pa.array(rows, pa.list_(pa.float32()))


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "null id": ({"id": pa.array([1, None, 3])}, "row 1: the id is missing"),
    "null text id": ({"id": pa.array(["a", "b", None])}, "row 2: the id is missing"),
    "uint64": ({"id": pa.array([1, 2, 2**63], pa.uint64())}, f"row 2: {2**63} does not fit"),
    "float ids": ({"id": pa.array([1.0, 2.0, 3.0])}, "ids are double: give integers or text"),
    "bool ids": ({"id": pa.array([True, False, True])}, "ids are bool: give integers or text"),
    "binary ids": ({"id": pa.array([b"a", b"b", b"c"])}, "ids are binary: give integers or text"),
    "date ids": ({"id": pa.array([1, 2, 3], pa.date32())}, "ids are date32[day]: give"),
    "empty id": ({"id": pa.array(["a", "", "c"])}, "row 1: the id is empty"),
    "long id": ({"id": pa.array(["a", "b", "x" * 257])}, "row 2: the id is over 256 bytes"),
    "id no UTF-8": ({"id": NO_UTF8}, "row 1: the id is not UTF-8"),
    "null embedding": ({"embedding": floats([1], None, [2])}, "row 1: the embedding is missing"),
    "null first": ({"embedding": floats(None, [1], [2])}, "row 0: the embedding is missing"),
    "empty first": ({"embedding": floats([], [], [])}, "row 0: the embedding is missing or empty"),
    "ragged": (
        {"embedding": floats([1, 2], [3, 4], [5])},
        "row 2: an embedding of 1 values, not 2 as in row 0",
    ),
    "integers": ({"embedding": pa.array([[1], [2], [3]])}, "embeddings are list<element: int64>"),
    "number": ({"embedding": pa.array([1.0, 2.0, 3.0])}, "embeddings are double: give lists"),
    "text": ({"embedding": pa.array(["1 2", "3 4", "5 6"])}, "embeddings are string: give lists"),
    "date": ({"day": pa.array([1, 2, 3], pa.date32())}, "column day: date32[day] cannot be"),
    "bytes": ({"raw": pa.array([b"a", b"b", b"c"])}, "column raw: binary cannot be an attribute"),
    "numbers": ({"sizes": pa.array([[1], [2], [3]])}, "column sizes: list<element: int64> cannot"),
    "nothing": ({"gap": pa.nulls(3)}, "column gap: null cannot be an attribute"),
    "decimal": ({"price": pa.array([1, 2, 3], pa.decimal128(9, 2))}, "column price: decimal128(9, 2)"),
    "large": ({"n": pa.array([1, 2**53 + 1, 3])}, "column n: row 1: 9007199254740993 is not exact"),
    "negative": ({"n": pa.array([1, 2, -(2**53) - 1])}, "column n: row 2: -9007199254740993 is not"),
    "nan": ({"n": pa.array([1.0, float("nan"), None])}, "column n: row 1: nan"),
    "infinity": ({"n": pa.array([1.0, None, float("-inf")])}, "column n: row 2: -inf"),
    "struct": (
        {"inner": pa.array([{"n": 1}, {"n": 2}, {"n": 2**60}])},
        "column n: row 2: 1152921504606846976 is not exact",
    ),
    "64 KiB": ({"text": pa.array(["", "x" * 65_536, ""])}, "row 1: attributes of 65540 bytes: at most"),
    "64 KiB in all": (
        {"a": pa.array(["", "é" * 16_384, ""]), "b": pa.array([None, None, ["x" * 40_000] * 2])},
        "row 2: attributes of 80002 bytes: at most",
    ),
    "attribute no UTF-8": ({"text": NO_UTF8}, "column text: row 1: "),
    "gap in a list": ({"tags": pa.array([["a"], None, ["a", None]])}, "column tags: row 2: "),
    "same name": (
        {"title": pa.array(["a", "b", "c"]), "inner": pa.array([{"title": "x"}] * 3)},
        "'title'",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_an_item_is_refused(tmp_path: Path, case: str) -> None:
    """A column or a value that cannot be kept is refused in one line with its column or row."""
    columns, why = FAULTS[case]
    path = write(tmp_path / "x.parquet", **columns)
    assert why in refusal(lambda: read_all(path), path)


def test_rows_are_counted_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row that a refusal names is that of the file, not that of its block."""
    monkeypatch.setattr(parquet_source, "BLOCK_ROWS", 2)
    for columns, why in (
        ({"embedding": floats([1, 2], [3, 4], [5])}, "row 2: an embedding of 1 values"),
        ({"embedding": floats([1, 2], [3, 4], None)}, "row 2: the embedding is missing"),
        ({"n": pa.array([1, 2, 2**60])}, "column n: row 2: "),
        ({"text": pa.array(["", "", "x" * 65_536])}, "row 2: attributes of"),
    ):
        path = write(tmp_path / "x.parquet", **columns)
        assert why in refusal(lambda path=path: read_all(path), path)  # type: ignore[misc]


def test_gaps_within_an_embedding_are_no_numbers(tmp_path: Path) -> None:
    """A null among the values of an embedding is NaN to what checks the rows after."""
    rows = read_all(write(tmp_path / "x.parquet", embedding=floats([1, None], [3, 4], [5, 6])))[1]
    assert [1.0, True] == [rows[0][0], np.isnan(rows[0][1])]


@pytest.mark.parametrize("column", ["id", "embedding", "title"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, column: str) -> None:
    """Where a name stands twice nobody can say which column is meant."""
    arrays = {"id": IDS, "embedding": VECTORS, "title": pa.array(["a", "b", "c"])}
    table = pa.Table.from_arrays([*arrays.values(), arrays[column]], names=[*arrays, column])
    path = tmp_path / "x.parquet"
    pq.write_table(table, path)
    assert f"'{column}'" in refusal(lambda: read_all(path), path)


@pytest.mark.parametrize("column", ["id", "embedding"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    """Without ids or embeddings a file is no catalogue."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": IDS, "embedding": VECTORS}).drop_columns([column]), path)
    assert f"no column '{column}'" == refusal(lambda: ParquetSource.open(path), path)


def test_no_rows_are_refused(tmp_path: Path) -> None:
    """A file without rows is no catalogue."""
    path = write(tmp_path / "x.parquet", id=IDS[:0], embedding=VECTORS[:0])
    assert "no rows" == refusal(lambda: ParquetSource.open(path), path)


def spoilt(path: Path, column: int) -> None:
    """A whole file, but for the pages of one of its columns."""
    values = np.random.default_rng(0).standard_normal((2_000, 4)).astype(np.float32)
    vectors = pa.array(values.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": pa.array(range(2_000)), "embedding": vectors}), path)
    about = pq.ParquetFile(path).metadata.row_group(0).column(column)
    start = about.dictionary_page_offset or about.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 200] = b"\xff" * 200
    path.write_bytes(content)


NO_PARQUET: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file or directory"),
    "a folder": (Path.mkdir, "not a file"),
    "empty": (Path.touch, "the file is empty"),
    "text": (lambda path: path.write_text("id,embedding\n" * 9), "not a whole Parquet file: "),
    "end cut": (lambda path: path.write_bytes(write(path).read_bytes()[:-9]), "not a whole Parquet"),
    "begin cut": (lambda path: path.write_bytes(write(path).read_bytes()[99:]), "not a whole Parquet"),
    "ids spoilt": (lambda path: spoilt(path, 0), "not a whole Parquet file: "),
    "rows spoilt": (lambda path: spoilt(path, 1), "not a whole Parquet file: "),
}


@pytest.mark.parametrize("case", NO_PARQUET)
def test_a_file_that_is_no_whole_parquet_is_refused(tmp_path: Path, case: str) -> None:
    """A file that is missing, another, cut or damaged is refused in one line that names it."""
    prepare, why = NO_PARQUET[case]
    path = tmp_path / "x.parquet"
    prepare(path)
    assert refusal(lambda: read_all(path), path).startswith(why)
