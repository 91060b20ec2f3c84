"""Readers of interactions: whatever the file looks like, the same pairs come out of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.errors import InputRefused
from rangefinder.keys import IdKind
from rangefinder.texts import TextColumn
from training.interactions import Interactions
from training.read.interactions_file import read_interactions
from training.read.layout import FileFormat, ReadOptions
from training.read.raw_columns import Read

Row = tuple[int, int, float, int]  # User, item, rating, time.


def read(folder: Path, content: str | bytes, **options: object) -> Read:
    path = folder / "x"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_interactions(path, ReadOptions(**options))  # type: ignore[arg-type]


def ids_of(column: object) -> list[object]:
    assert isinstance(column, TextColumn | np.ndarray)
    return [text.decode() for text in column] if isinstance(column, TextColumn) else column.tolist()


def rows_of(interactions: Interactions) -> list[tuple[object, ...]]:
    """Ids, rating and time of each pair, in order."""
    users, items = ids_of(interactions.user_ids), ids_of(interactions.item_ids)
    count = len(interactions)
    ratings = [None] * count if interactions.ratings is None else interactions.ratings.tolist()
    times = [None] * count if interactions.times is None else interactions.times.tolist()
    return [
        (users[user], items[item], rating, time)
        for user, item, rating, time in zip(
            interactions.users, interactions.items, ratings, times, strict=True
        )
    ]


# By hand, in the manner of each real format; what is expected of all of them follows.
EXCERPTS: dict[str, str | bytes] = {
    "MovieLens 1M": "1::661::3::978302109\n1::914::3::978301968\n2::661::5::978298413\n",
    "MovieLens 100K": "1\t661\t3\t978302109\n2\t661\t5\t978298413\n1\t914\t3\t978301968\n",
    "MovieLens CSV": (
        "userId,movieId,rating,timestamp\n"
        "1,661,3.0,978302109\n1,914,3.0,978301968\n2,661,5.0,978298413\n"
    ),
    "no header": "1,661,3,978302109\n1,914,3,978301968\n2,661,5,978298413\n",
    "semicolons and quotes": (
        '"User-ID";"ISBN";"Book-Rating";"Date"\n'
        '"1";"661";"3";"2000-12-31T22:35:09"\n"1";"914";"3";"2000-12-31 22:32:48"\n'
        '"2";"661";"5";"2000-12-31 21:33:33"\n'
    ),
    "zones": (
        "user,item,rating,time\n1,661,3,2000-12-31T22:35:09Z\n"
        "1,914,3,2001-01-01T00:32:48+02:00\n2,661,5,2000-12-31T21:33:33Z\n"
    ),
    "other columns": (
        "timestamp|session|item_id|note|user_id|score\n"
        "978302109|x|661|\xe9|1|3\n978301968|y|914||1|3\n978298413|z|661||2|5\n"
    ),
    "Windows": "\ufeffuser,item,rating,time\r\n1,661,3,978302109\r\n1,914,3,978301968\r\n\r\n"
    "2,661,5,978298413\r\n",
    "UTF-16": "user,item,rating,time\n1,661,3,978302109\n1,914,3,978301968\n2,661,5,978298413\n".encode(
        "utf-16"
    ),
    "spaces": "1 661 3 978302109\n1 914 3 978301968\n2 661 5 978298413\n",
}
EXPECTED = [("1", 661, 3.0, 978302109.0), ("1", 914, 3.0, 978301968.0), ("2", 661, 5.0, 978298413.0)]


@pytest.mark.parametrize("name", EXCERPTS)
def test_real_formats_are_recognised(name: str, tmp_path: Path) -> None:
    """Separator, header, encoding and columns are found by looking, whatever order the rows have."""
    assert EXPECTED == rows_of(read(tmp_path, EXCERPTS[name]).interactions)


def test_a_file_can_lack_ratings_and_times(tmp_path: Path) -> None:
    """A third column is a rating, or a time where it begins in 1973 or later; two are enough."""
    pair = read(tmp_path, "u;a\nv;b\n").interactions
    rated = read(tmp_path, "u;a;5\nv;b;99\n").interactions
    timed = read(tmp_path, "u;a;978302109\nv;b;978302110\n").interactions
    assert [("u", "a", None, None), ("v", "b", None, None)] == rows_of(pair)
    assert [("u", "a", 5.0, None), ("v", "b", 99.0, None)] == rows_of(rated)
    assert [("u", "a", None, 978302109.0), ("v", "b", None, 978302110.0)] == rows_of(timed)


def test_adjacency_lines_are_told_from_rows(tmp_path: Path) -> None:
    """Lines of any length, or of users that never come again; a user without items adds nothing."""
    ragged = read(tmp_path, "0 4 7 9\n1 4\n2\n3 9 9\n")
    table = read(tmp_path, "0 4 5\n0 7 4\n1 4 3\n").interactions
    even = read(tmp_path, "0 4 7\n1 4 9\n5 7 9\n").interactions
    commas = read(tmp_path, "0,4,7\n1,4,9\n", format=FileFormat.ADJACENCY).interactions
    expected = [("0", 4), ("0", 7), ("0", 9), ("1", 4), ("3", 9)]
    assert expected == [row[:2] for row in rows_of(ragged.interactions)]
    assert 1 == ragged.repeated_count
    assert [("0", 4, 5.0, None), ("0", 7, 4.0, None), ("1", 4, 3.0, None)] == rows_of(table)
    assert [("0", 4), ("0", 7), ("1", 4), ("1", 9), ("5", 7), ("5", 9)] == [
        row[:2] for row in rows_of(even)
    ]
    assert [("0", 4), ("0", 7), ("1", 4), ("1", 9)] == [row[:2] for row in rows_of(commas)]


def test_ids_are_integers_where_all_are(tmp_path: Path) -> None:
    """An item that is no int64 makes all of them text, unless integers are asked for; users keep their
    spelling; spellings of one integer are one item."""
    integers = read(tmp_path, "007,7\n7,+8\n7,-9\n8,08\n").interactions
    texts = read(tmp_path, "7,7\n8,x\n").interactions
    too_large = read(tmp_path, f"7,7\n8,{2**63}\n").interactions
    asked = read(tmp_path, "7,7\n8,9\n", id_kind=IdKind.TEXT).interactions
    assert [-9, 7, 8] == ids_of(integers.item_ids)
    assert ["007", "7", "8"] == ids_of(integers.user_ids)
    assert ["7", "x"] == ids_of(texts.item_ids)
    assert ["7", str(2**63)] == ids_of(too_large.item_ids)
    assert ["7", "9"] == ids_of(asked.item_ids)
    with pytest.raises(InputRefused, match="line 2: the item 'x' is no int64"):
        read(tmp_path, "7,7\n8,x\n", id_kind=IdKind.ORDERED)


def test_of_a_repeated_pair_the_latest_counts(tmp_path: Path) -> None:
    """The latest by time, or without times the last of the file; how many were left out is told."""
    timed = read(tmp_path, "user,item,rating,time\n1,5,1,30\n1,5,2,50\n1,5,3,40\n2,6,4,1\n")
    untimed = read(tmp_path, "user,item,rating\n1,5,1\n2,6,4\n1,5,2\n1,5,3\n")
    assert [("1", 5, 2.0, 50.0), ("2", 6, 4.0, 1.0)] == rows_of(timed.interactions)
    assert [("1", 5, 3.0, None), ("2", 6, 4.0, None)] == rows_of(untimed.interactions)
    assert (2, 2) == (timed.repeated_count, untimed.repeated_count)


ROWS = st.lists(
    st.tuples(
        st.integers(0, 5), st.integers(-3, 9), st.sampled_from([-2.5, 0.0, 5.0]), st.integers(0, 3)
    ),
    min_size=1,
    max_size=25,
)


def expected_of(rows: list[Row]) -> list[tuple[object, ...]]:
    """What a reader must make of them: plain Python."""
    latest: dict[tuple[str, int], tuple[float, int]] = {}
    for user, item, rating, time in rows:
        pair = (str(user), item)
        if pair not in latest or time >= latest[pair][1]:
            latest[pair] = (rating, time)
    return [(*pair, rating, float(time)) for pair, (rating, time) in sorted(latest.items())]


def as_text(separator: str, header: str) -> Callable[[Path, list[Row]], None]:
    return lambda path, rows: path.write_text(
        header + "".join(separator.join(map(str, row)) + "\n" for row in rows)
    )  # type: ignore[return-value]


def as_parquet(path: Path, rows: list[Row]) -> None:
    users, items, ratings, times = zip(*rows, strict=True)
    columns = {"rating": ratings, "movieId": items, "noise": times, "user_id": users, "ts": times}
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    "write",
    [
        as_text("::", ""),
        as_text("\t", ""),
        as_text(",", "user,item,rating,time\n"),
        as_text("|", "uid|iid|rating|ts\n"),
        as_parquet,
    ],
    ids=["::", "tab", "header", "pipe", "Parquet"],
)
@given(ROWS)
def test_every_reader_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, write: Callable[[Path, list[Row]], None], rows: list[Row]
) -> None:
    """Of any rows come the distinct pairs, sorted, each with what was latest; too little is refused."""
    path = tmp_path_factory.mktemp("read") / "x"
    write(path, rows)
    expected = expected_of(rows)
    users, items = {row[0] for row in expected}, {row[1] for row in expected}
    if len(users) < 2 or len(items) < 2:
        with pytest.raises(InputRefused, match="fewer than 2 users and 2 items"):
            read_interactions(path)
        return

    result = read_interactions(path)

    assert expected == rows_of(result.interactions)
    assert len(rows) - len(expected) == result.repeated_count
    assert sorted(map(str, users)) == ids_of(result.interactions.user_ids)
    assert items == set(ids_of(result.interactions.item_ids))


def test_types_of_parquet_are_taken_as_they_are(tmp_path: Path) -> None:
    """Dictionaries and timestamps as databases write them; text stays text, also where it is digits."""
    moments = pa.array([1_000_000, 2_500_000], pa.timestamp("us"))
    columns = {
        "user": pa.array(["7", "8"]).dictionary_encode(),
        "item": pa.array(["1", "2"], pa.large_string()),
        "time": moments,
        "rating": pa.array([1, 2], pa.int8()),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    texts = read_interactions(tmp_path / "x.parquet").interactions
    asked = read_interactions(tmp_path / "x.parquet", ReadOptions(id_kind=IdKind.INTEGER)).interactions
    assert [("7", "1", 1.0, 1.0), ("8", "2", 2.0, 2.5)] == rows_of(texts)
    assert [("7", 1, 1.0, 1.0), ("8", 2, 2.0, 2.5)] == rows_of(asked)


def test_many_blocks_are_one_file(tmp_path: Path) -> None:
    """A file of several of the parser's blocks loses nothing at their borders, in every text format."""
    count = 300_000
    path = tmp_path / "x"
    path.write_text("".join(f"user-{n % 1000:030d}\titem-{n // 1000:030d}\n" for n in range(count)))
    assert path.stat().st_size > 2 * (8 << 20)
    rows = read_interactions(path).interactions
    path.write_text(
        "".join(
            f"{user} {' '.join(f'item-{item:030d}' for item in range(300))}\n" for user in range(1000)
        )
    )
    lines = read_interactions(path).interactions
    for each in (rows, lines):
        assert (count, 1000, 300) == (len(each), each.user_count, each.item_count)
        assert (np.bincount(each.users) == 300).all() and (np.bincount(each.items) == 1000).all()
