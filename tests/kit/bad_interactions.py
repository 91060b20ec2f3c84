"""Inputs that `rangefinder train` must refuse, each with the words that it is refused with."""

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.kit.generated_tastes import generated_pairs

PAIRS = generated_pairs(40, 24, 6)
GOOD = "".join(f"{user},{item}\n" for user, item in PAIRS).encode()
LINE_COUNT = len(PAIRS)


@dataclass(frozen=True, slots=True)
class Bad:
    """Files that are written into a folder, further options, and what is said of them."""

    write: Callable[[Path], object]
    words: str
    options: Mapping[str, object] = field(default_factory=dict)


def file(content: bytes, words: str, **options: object) -> Bad:
    """The bytes of a file of interactions."""
    return Bad(lambda folder: (folder / "x").write_bytes(content), f"/x: {words}", options)


def line(text: str, words: str, **options: object) -> Bad:
    """A good file with a bad line at its end."""
    return file(GOOD + f"{text}\n".encode(), f"line {LINE_COUNT + 1}: {words}", **options)


def parquet(words: str, **columns: object) -> Bad:
    """A Parquet file of good columns, changed; None leaves one out."""
    users, items = zip(*PAIRS, strict=True)
    all_columns: dict[str, Any] = {"user_id": users, "item_id": items, **columns}
    kept = {name: column for name, column in all_columns.items() if column is not None}
    return Bad(lambda folder: pq.write_table(pa.table(kept), folder / "x"), f"/x: {words}")


def titles(content: bytes, words: str, **options: object) -> Bad:
    """Good interactions, with a file of titles that is not."""

    def write(folder: Path) -> None:
        (folder / "x").write_bytes(GOOD)
        (folder / "t").write_bytes(content)

    return Bad(write, words, {"titles": "t", **options})


def good(words: str, prepare: Callable[[Path], object] = lambda folder: None, **options: object) -> Bad:
    """Good interactions, with options that are not."""

    def write(folder: Path) -> None:
        (folder / "x").write_bytes(GOOD)
        prepare(folder)

    return Bad(write, words, options)


def replaced(column: tuple[object, ...], row: int, value: object) -> list[object]:
    return [*column[:row], value, *column[row + 1 :]]


USERS = tuple(user for user, _ in PAIRS)

BAD: dict[str, Bad] = {
    # The file.
    "missing": Bad(lambda folder: None, "/x: no such file or directory"),
    "folder": Bad(lambda folder: (folder / "x").mkdir(), "/x: not a file"),
    "empty": file(b"", "the file is empty"),
    "blank": file(b"\n \n\n", "holds nothing but blank lines"),
    "binary": file(bytes(range(256)) * 9, "a binary file: give CSV, TSV, adjacency lines or Parquet"),
    "binary after a while": file(GOOD * 99 + b"1,\0002\n", f"line {99 * LINE_COUNT + 1}: a NUL byte"),
    "packed": file(gzip.compress(GOOD), "gzip: unpack it first"),
    "prose": file(b"hello\nworld\n", "line 1: one field: expected a user and an item"),
    "header alone": file(b"user,item\n", "a header and no interactions"),
    "users alone": file(b"1 \n2\n", "line 1: one field"),
    "strange header": file(b"a,b\n1,2\n2,3\n", "line 1, a header: no column of users among a, b"),
    "wide": file(b"1,2,3,4,5\n", "line 1: 5 fields and no header: expected user, item, rating, time"),
    "Latin-1": file(GOOD + "1,é\n".encode("latin-1"), f"line {LINE_COUNT + 1}: not utf-8 text"),
    "Latin-1 adjacency": file(
        "1 2 3\n2 é\n".encode("latin-1"), "line 2: not utf-8 text: give its --encoding"
    ),
    "UTF-16 cut": file("user,item\n1,2\n".encode("utf-16")[:-1], "not utf-16 text"),
    "another encoding": file(GOOD, "not utf-16 text", encoding="utf-16"),
    # Its lines.
    "ragged": line("5", "1 field in '5': expected 2 fields separated by ',': user, item"),
    "too many fields": line("5,6,7", "3 fields in '5,6,7': expected 2 fields"),
    "no user": line(",5", "the user is empty"),
    "no item": line("5,", "the item is empty"),
    "long user": line(f"{'u' * 257},5", "the user is over 256 bytes"),
    "long item": line(f"5,{'é' * 129}", "the item is over 256 bytes"),
    "text among integers": line(
        "5,x", "the item 'x' is no int64: give integers, or --id-kind text", id_kind="ordered"
    ),
    "over int64": line(f"5,{2**63}", f"the item '{2**63}' is no int64", id_kind="integer"),
    "rating of text": file(b"1,2,3\n2,3,good\n", "line 2: the rating is 'good': expected a number"),
    "no rating": file(
        b"user,item,rating\n1,2,3\n2,3,\n", "line 3: the rating is '': expected a number"
    ),
    "rating NaN": file(b"1,2,3\n2,3,nan\n", "line 2: the rating is nan: expected -1e+09 to 1e+09"),
    "rating infinite": file(b"1,2,inf\n2,3,4\n", "line 1: the rating is inf: expected -1e+09"),
    "rating out of range": file(b"1,2,3\n2,3,2e9\n", "line 2: the rating is 2e9: expected -1e+09"),
    "time before 1970": file(b"1::2::3::5\n2::3::3::-5\n", "line 2: the time is '-5': expected it as"),
    "milliseconds": file(
        b"user,item,time\n1,2,978302109000\n2,3,978302109000\n",
        "line 2: the time is '978302109000': expected it as seconds since 1970, from 1970 to the year",
    ),
    "date of no calendar": file(
        b"user,item,date\n1,2,2020-01-31\n2,3,2020-02-30\n",
        "line 3: the time is '2020-02-30': expected it as 2026-01-31T12:00:00",
    ),
    # What can be learned from it.
    "one interaction": file(b"1,2\n", "1 user and 1 item: there is nothing to learn from"),
    "one user": file(b"1,2\n1,3\n1,4\n", "1 user and 3 items: there is nothing to learn from"),
    "one item": file(b"1,2\n2,2\n", "2 users and 1 item: there is nothing to learn from"),
    # Parquet.
    "Parquet cut": file(b"PAR1" * 9, "not a whole Parquet file"),
    "no Parquet": file(GOOD, "not a whole Parquet file", format="parquet"),
    "no column of users": parquet("no column of users among item_id: name it user", user_id=None),
    "no rows": parquet("no rows", user_id=pa.array([], pa.int64()), item_id=pa.array([], pa.int64())),
    "null": parquet("row 3: the user is missing", user_id=replaced(USERS, 3, None)),
    "float ids": parquet("users are double: give integers or text", user_id=[0.5] * LINE_COUNT),
    "empty id": parquet("an id is empty", user_id=replaced(("a",) * LINE_COUNT, 3, "")),
    "ratings of text": parquet("ratings are string: give numbers", rating=["a"] * LINE_COUNT),
    "Parquet rating": parquet(
        "row 7: the rating is nan: expected", rating=replaced((1.0,) * LINE_COUNT, 7, float("nan"))
    ),
    "Parquet milliseconds": parquet(
        "row 0: the time is 9.78302e+11: expected", timestamp=[978302109000] * LINE_COUNT
    ),
    # Titles.
    "titles missing": good("/t: no such file or directory", titles="t"),
    "titles of others": titles(
        b"1000,A\n2000,B\n", "/t: no item has a title: these are titles of other"
    ),
    "titles empty": titles(b"", "/t: the file is empty"),
    "titles ragged": titles(b"1,A\n2\n", "/t: line 2: 1 field: expected an id and a title"),
    "titles binary": titles(b"1,A\n\0\n", "/t: a binary file"),
    # Options.
    "strange encoding": good("--encoding 'klingon' is unknown", encoding="klingon"),
    "strange separator": good("--separator 'ab': give one character", separator="ab"),
    "other separator": good("/x: line 1: one field", separator="tab"),
    "more shards than items": good("/x: 24 items are too few for 25 shards", shards=25),
    "out is full": good("/out: exists already", lambda at: (at / "parent/out/x").mkdir(parents=True)),
    "out below a file": good(
        "/parent/a: not a directory",
        lambda at: (at / "parent/a").write_text("kept"),
        out="parent/a/out",
    ),
}


def prepare(bad: Bad, folder: Path) -> list[str]:
    """Write the files and return the arguments."""
    (folder / "parent").mkdir(parents=True)
    bad.write(folder)
    options = {"interactions": "x", "out": "parent/out", **bad.options}
    paths = ("interactions", "titles", "out")
    values = {name: folder / str(value) if name in paths else value for name, value in options.items()}
    return ["train", *(f"--{name.replace('_', '-')}={value}" for name, value in values.items())]
