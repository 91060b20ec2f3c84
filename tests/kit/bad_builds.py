"""Inputs that `rangefinder build` must refuse, each with the words that it is refused with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = np.random.default_rng(5).standard_normal((50, 8)).astype(np.float32)
IDS = np.arange(50) * 3 - 70


@dataclass(frozen=True, slots=True)
class Bad:
    """Files that are written into a folder, the options that name them, and what is said of them."""

    options: Mapping[str, object]
    words: str
    write: Callable[[Path], None] = lambda folder: None


def embeddings(array: npt.NDArray[Any], words: str) -> Bad:
    """An array as --embeddings."""
    return Bad(
        {"embeddings": "x.npy"}, f"/x.npy: {words}", lambda folder: np.save(folder / "x.npy", array)
    )


def embedding_bytes(change: Callable[[bytes], bytes], words: str) -> Bad:
    """A good file of embeddings, changed."""

    def write(folder: Path) -> None:
        np.save(folder / "x.npy", ROWS)
        (folder / "x.npy").write_bytes(change((folder / "x.npy").read_bytes()))

    return Bad({"embeddings": "x.npy"}, f"/x.npy: {words}", write)


def ids(column: npt.NDArray[Any] | bytes, words: str, **options: object) -> Bad:
    """Ids beside good embeddings: an array, or the bytes of a text file."""
    name = "ids.txt" if isinstance(column, bytes) else "ids.npy"

    def write(folder: Path) -> None:
        np.save(folder / "x.npy", ROWS)
        if isinstance(column, bytes):
            (folder / name).write_bytes(column)
        else:
            np.save(folder / name, column)

    return Bad({"embeddings": "x.npy", "ids": name, **options}, words, write)


def good(words: str, write: Callable[[Path], None] = lambda folder: None, **options: object) -> Bad:
    """Good embeddings, with options that are not."""

    def write_all(folder: Path) -> None:
        np.save(folder / "x.npy", ROWS)
        write(folder)

    return Bad({"embeddings": "x.npy", **options}, words, write_all)


def items(words: str, **columns: object) -> Bad:
    """A Parquet file of good columns, changed; None leaves one out."""
    all_columns = {"id": IDS, "embedding": list(ROWS), **columns}
    kept = {name: column for name, column in all_columns.items() if column is not None}
    return Bad(
        {"items": "x.parquet"},
        f"/x.parquet: {words}",
        lambda folder: pq.write_table(pa.table(kept), folder / "x.parquet"),
    )


def item_bytes(change: Callable[[bytes], bytes], words: str) -> Bad:
    """A good Parquet file, changed."""

    def write(folder: Path) -> None:
        pq.write_table(pa.table({"id": IDS, "embedding": list(ROWS)}), folder / "x.parquet")
        (folder / "x.parquet").write_bytes(change((folder / "x.parquet").read_bytes()))

    return Bad({"items": "x.parquet"}, f"/x.parquet: {words}", write)


def keep(name: str) -> Callable[[Path], None]:
    """A file that is in the way."""

    def write(folder: Path) -> None:
        (folder / name).write_text("kept")

    return write


def with_value(row: int, value: float, dtype: str = "float32", row_count: int = 50) -> npt.NDArray[Any]:
    rows = np.ones((row_count, 4), dtype)
    rows[row, 2] = value
    return rows


def replaced(column: list[Any], row: int, value: object) -> list[Any]:
    return [*column[:row], value, *column[row + 1 :]]


def lines(texts: list[str]) -> bytes:
    return "\n".join(texts).encode()


def break_first_page(content: bytes) -> bytes:
    """The header of the first page, after the file's own mark, turned over bit by bit."""
    return content[:4] + bytes(255 - byte for byte in content[4:24]) + content[24:]


NAMES = [f"item {row}" for row in range(50)]
NOT_FINITE = "the embedding holds NaN or an infinity"

BAD: dict[str, Bad] = {
    # The file of embeddings.
    "missing": Bad({"embeddings": "x.npy"}, "/x.npy: no such file or directory"),
    "a folder": Bad(
        {"embeddings": "x.npy"}, "/x.npy: not a file", lambda folder: (folder / "x.npy").mkdir()
    ),
    "empty": embedding_bytes(lambda content: b"", "the file is empty"),
    "cut": embedding_bytes(lambda content: content[:-1], "not a whole .npy file"),
    "header only": embedding_bytes(lambda content: content[:128], "not a whole .npy file"),
    "half a header": embedding_bytes(lambda content: content[:60], "not a whole .npy file"),
    "broken header": embedding_bytes(
        lambda content: content.replace(b"), }", b" , }", 1), "not a whole .npy file"
    ),
    "text": embedding_bytes(lambda content: b"1.0, 2.0, 3.0\n", "not a whole .npy file"),
    "archive": Bad(
        {"embeddings": "x.npz"},
        "/x.npz: not a whole .npy file",
        lambda folder: np.savez(folder / "x.npz", a=ROWS),
    ),
    "int64": embeddings(np.ones((50, 8), np.int64), "embeddings are int64: give float32"),
    "bool": embeddings(np.ones((50, 8), bool), "embeddings are bool"),
    "complex": embeddings(np.ones((50, 8), complex), "embeddings are complex128"),
    "strings": embeddings(np.full((50, 8), "a"), "embeddings are <U1"),
    "one dimension": embeddings(np.ones(50, np.float32), "shape (50,): give (items, dimension)"),
    "three dimensions": embeddings(np.ones((5, 5, 8), np.float32), "shape (5, 5, 8)"),
    "no rows": embeddings(np.ones((0, 8), np.float32), "shape (0, 8)"),
    "no columns": embeddings(np.ones((8, 0), np.float32), "shape (8, 0)"),
    "NaN": embeddings(with_value(17, np.nan), f"row 17: {NOT_FINITE}"),
    "infinity": embeddings(with_value(0, -np.inf), f"row 0: {NOT_FINITE}"),
    "late NaN": embeddings(with_value(20_003, np.nan, row_count=20_010), f"row 20003: {NOT_FINITE}"),
    "beyond float32": embeddings(with_value(9, 1e39, "float64"), f"row 9: {NOT_FINITE}"),
    "beyond squares": embeddings(with_value(9, 1e30), "row 9: the embedding holds values too large"),
    # Ids.
    "ids missing": good("/none.npy: no such file or directory", ids="none.npy"),
    "ids empty": ids(b"", "/ids.txt: the file is empty"),
    "ids too few": ids(IDS[1:], "/ids.npy: 49 ids for the 50 rows of "),
    "ids too many": ids(lines([*NAMES, "one more"]), "/ids.txt: 51 ids for the 50 rows of "),
    "ids of floats": ids(IDS.astype(np.float64), "/ids.npy: ids are float64: give integers or text"),
    "ids as matrix": ids(IDS[:, None], "/ids.npy: shape (50, 1): ids are one column"),
    "ids too large": ids(
        np.arange(50, dtype=np.uint64) + 2**63 - 45,
        "/ids.npy: row 45: 9223372036854775808 does not fit",
    ),
    "ids twice": ids(np.where(IDS == -1, 11, IDS), "/x.npy: the id 11 stands in rows 23 and 27"),
    "texts twice": ids(lines(replaced(NAMES, 40, "item 4")), "the id 'item 4' stands in rows 4 and 40"),
    "texts, not integers": ids(
        np.array(NAMES), "ids are text, but --id-kind is integer", id_kind="integer"
    ),
    "texts, not ordered": ids(lines(NAMES), "row 0: 'item 0' is no int64", id_kind="ordered"),
    "integers, not texts": ids(IDS, "ids are integers, but --id-kind is text", id_kind="text"),
    "row numbers, not texts": good("ids are integers, but --id-kind is text", id_kind="text"),
    "beyond int64": ids(
        lines([*map(str, IDS[:-1]), str(2**63)]),
        "row 49: '9223372036854775808' is no int64",
        id_kind="integer",
    ),
    "empty id": ids(lines(replaced(NAMES, 3, "")), "/ids.txt: row 3: the id is empty"),
    "long id": ids(lines(replaced(NAMES, 3, "é" * 129)), "/ids.txt: row 3: the id is over 256 bytes"),
    "id not UTF-8": ids(
        lines(NAMES).replace(b"item 3\n", b"item \xff\n"), "/ids.txt: row 3: the id is not UTF-8"
    ),
    "half a character": ids(
        np.array(replaced(NAMES, 3, "\ud83d")), "/ids.npy: row 3: the id is not UTF-8"
    ),
    # Parquet.
    "no Parquet": item_bytes(lambda content: b"PAR1" * 10, "not a whole Parquet file"),
    "Parquet cut": item_bytes(lambda content: content[:-100], "not a whole Parquet file"),
    "Parquet empty": item_bytes(lambda content: b"", "the file is empty"),
    "Parquet damaged": item_bytes(break_first_page, "not a whole Parquet file"),
    "no id": items("no column 'id'", id=None),
    "no embedding": items("no column 'embedding'", embedding=None),
    "no items": items(
        "no rows", id=pa.array([], pa.int64()), embedding=pa.array([], pa.list_(pa.float32()))
    ),
    "null id": items("row 7: the id is missing", id=replaced(IDS.tolist(), 7, None)),
    "float id": items("ids are double: give integers or text", id=IDS * 0.5),
    "null embedding": items("row 7: the embedding is missing", embedding=replaced(list(ROWS), 7, None)),
    "null in embedding": items(
        f"row 7: {NOT_FINITE}", embedding=replaced(ROWS.tolist(), 7, [1.0, None] * 4)
    ),
    "ragged": items(
        "row 7: an embedding of 9 values, not 8 as in row 0",
        embedding=replaced(ROWS.tolist(), 7, [0.5] * 9),
    ),
    "integer embeddings": items("embeddings are list<element: int64>", embedding=[[1, 2]] * 50),
    "text embeddings": items("embeddings are string", embedding=NAMES),
    "attribute of bytes": items("column price: binary cannot be an attribute", price=[b"1"] * 50),
    "inexact attribute": items(
        "column price: row 7: 9007199254740993 is not exact", price=replaced([1] * 50, 7, 2**53 + 1)
    ),
    "long attribute": items(
        "row 7: attributes of 70005 bytes: at most 65536", title=replaced(NAMES, 7, "x" * 70_000)
    ),
    # Options.
    "more shards than items": good("50 items are too few for 51 shards", shards=51),
    "out is full": good(
        "/out: exists already", lambda folder: (folder / "parent/out/x").mkdir(parents=True)
    ),
    "out is a file": good("/out: exists already", keep("parent/out")),
    "out below a file": good("not a directory", keep("parent/a"), out="parent/a/out"),
    "long out": good("file name too long", out=f"parent/{'x' * 300}", name="a"),
    "probes missing": good("/p.npy: no such file or directory", probes="p.npy"),
    "probes of another dimension": good(
        "/p.npy: 9 columns, but embeddings have 8",
        lambda folder: np.save(folder / "p.npy", np.ones((30, 9))),
        probes="p.npy",
    ),
    "probes with NaN": good(
        "/p.npy: a probe holds NaN",
        lambda folder: np.save(folder / "p.npy", np.full((30, 8), np.nan)),
        probes="p.npy",
    ),
    "one probe": good(
        "/p.npy: shape (8,)", lambda folder: np.save(folder / "p.npy", np.ones(8)), probes="p.npy"
    ),
}

PATHS = ("embeddings", "ids", "items", "probes", "out")


def prepare(bad: Bad, folder: Path) -> list[str]:
    """Write the files and return the arguments."""
    (folder / "parent").mkdir(parents=True)
    bad.write(folder)
    options = {"metric": "l2", "out": "parent/out", **bad.options}
    values = {name: folder / str(value) if name in PATHS else value for name, value in options.items()}
    return ["build", *(f"--{name.replace('_', '-')}={value}" for name, value in values.items())]
