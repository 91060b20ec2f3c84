"""Pass one of a build: rows are checked, cut by key and kept beside their keys."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from rangefinder.errors import InputRefused
from rangefinder.keys import IdKind
from rangefinder.metric import Metric
from rangefinder.texts import BLOB, ENDS, TextColumn
from shard_server.build import spool
from shard_server.build.keyring import make_keyring
from shard_server.build.source import Ids, ItemBlock
from shard_server.build.spool import spool_items

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GivenSource:
    """Rows that the test gives, in blocks of three."""

    rows: Rows
    texts: TextColumn

    name = "given.npy"
    attribute_schema = None

    @property
    def row_count(self) -> int:
        return len(self.rows)

    @property
    def dimension(self) -> int:
        return int(self.rows.shape[1])

    def ids(self) -> Ids:
        return self.texts

    def blocks(self) -> Iterator[ItemBlock]:
        for start in range(0, len(self.rows), 3):
            yield ItemBlock(self.rows[start : start + 3], None)


def spooled(root: Path, rows: Rows, metric: Metric, probe_rows: list[int]) -> tuple[list[Path], Rows]:
    """Spool rows, whose ids are `item-<row>`, for two shards; returns folders and probes."""
    source = GivenSource(rows, TextColumn.of(f"item-{row}".encode() for row in range(len(rows))))
    keyring = make_keyring(source.ids(), IdKind.TEXT, 2, source.name)
    folders = [root / "s-0", root / "s-1"]
    done: list[int] = []
    probes = spool_items(
        source, source.ids(), keyring, metric, folders, np.array(probe_rows, np.int64), done.append
    )
    assert len(rows) == sum(done)
    return folders, probes


def rows_by_text(folders: list[Path], dimension: int) -> dict[bytes, list[float]]:
    found: dict[bytes, list[float]] = {}
    for folder in folders:
        rows = np.fromfile(folder / spool.ROWS, np.float32).reshape(-1, dimension)
        texts = TextColumn(np.load(folder / BLOB), np.load(folder / ENDS))
        assert len(rows) == len(np.load(folder / spool.KEYS))
        found |= dict(zip(texts, rows.tolist(), strict=True))
    return found


ROWS = np.array([[3, 4], [0, 0], [0, 2], [1e18, 0], [1e-20, 0], [-1, 0], [6, 8]], np.float32)


def test_every_row_is_in_one_spool_beside_its_id(tmp_path: Path) -> None:
    """Each item is spooled once, raw for inner products; probes are the rows asked for, in order."""
    folders, probes = spooled(tmp_path, ROWS, Metric.INNER_PRODUCT, [0, 2, 3, 6])
    expected = {f"item-{row}".encode(): values for row, values in enumerate(ROWS.tolist())}
    assert expected == rows_by_text(folders, 2)
    assert ROWS[[0, 2, 3, 6]].tolist() == probes.tolist()


def test_cosine_rows_are_kept_at_length_1(tmp_path: Path) -> None:
    """Rows of a cosine release have length 1, zero rows stay zero; probes are as they were given."""
    folders, probes = spooled(tmp_path, ROWS, Metric.COSINE, [0, 1])
    found = rows_by_text(folders, 2)
    expected = [[0.6, 0.8], [0, 0], [0, 1], [1, 0], [1, 0], [-1, 0], [0.6, 0.8]]
    assert np.array(expected, np.float32).tolist() == [
        found[f"item-{row}".encode()] for row in range(7)
    ]
    assert ROWS[:2].tolist() == probes.tolist()


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.nan, "NaN or an infinity"),
        (np.inf, "NaN or an infinity"),
        (-np.inf, "NaN or an infinity"),
        (2e19, "values too large to square"),
    ],
)
@pytest.mark.parametrize("row", [0, 4, 6])
def test_a_row_that_cannot_be_scored_is_refused(
    tmp_path: Path, row: int, value: float, what: str
) -> None:
    """NaN, an infinity or a value whose square is none is refused with the row of the file."""
    rows = ROWS.copy()
    rows[row, 1] = value
    with pytest.raises(InputRefused, match=rf"^given\.npy: row {row}: the embedding holds {what}$"):
        spooled(tmp_path, rows, Metric.COSINE, [])
