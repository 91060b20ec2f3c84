"""A small release with tables of users and items, as training makes them, and all that an oracle needs.

Every tenth item is in no table: a newcomer that only the index knows. Seeded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rangefinder.item_tables import ItemTables
from rangefinder.keys import IdKind, keys_of_texts
from rangefinder.metric import Metric
from rangefinder.release import IndexParameters, RankerDescription, ReleaseExtras
from rangefinder.texts import TextColumn
from rangefinder.user_tables import UserTables
from shard_server.build.parquet_source import ParquetSource
from shard_server.build.release_builder import BuildOrder, Progress, build_release
from tests.kit.nasty_world import Ids, key_of

DIMENSION = 8
NEIGHBOURS = 12
POPULAR = 150

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TastedRelease:
    """Items by row; tables by row too: `neighbours` and histories hold rows, newest first."""

    path: Path
    id_kind: str
    ids: Ids
    keys: list[int]
    rows: Rows
    neighbours: dict[int, list[tuple[int, float]]]  # Of the items that are in the tables.
    popular: list[tuple[int, float]]
    users: list[str]
    embeddings: Rows  # Beside the users.
    histories: list[list[int]]

    @property
    def name(self) -> str:
        return self.path.name

    def rows_of(self, ids: "npt.NDArray[np.int64] | list[str]") -> list[int]:
        """Rows of items by id."""
        row_of = dict(zip(self.ids, range(len(self.ids)), strict=True))
        listed: list[int] | list[str] = ids.tolist() if isinstance(ids, np.ndarray) else ids
        return [row_of[each] for each in listed]


def build_tasted_release(
    folder: Path,
    id_kind: str = "integer",
    *,
    item_count: int = 1_500,
    user_count: int = 60,
    save_ranker: Callable[[Path], RankerDescription | None] = lambda root: None,
) -> TastedRelease:
    """Build it at folder/tasted. save_ranker writes a real ranker into it, which `up` will serve."""
    random = np.random.default_rng(21)
    rows = random.standard_normal((item_count, DIMENSION)).astype(np.float32)
    ids: Ids = [row * 7 - 3_000 for row in range(item_count)]
    if id_kind == "text":
        ids = [f"Käse {row}" for row in range(item_count)]
    known = [row for row in range(item_count) if row % 10]
    release = TastedRelease(
        path=folder / "tasted",
        id_kind=id_kind,
        ids=ids,
        keys=[key_of(each, id_kind) for each in ids],
        rows=rows,
        neighbours={row: _neighbours(row, known, random) for row in known},
        popular=[
            (int(row), float(POPULAR - place))
            for place, row in enumerate(random.choice(known, POPULAR, replace=False))
        ],
        users=[f"user {number}" if number % 2 else str(number) for number in range(user_count)],
        embeddings=random.standard_normal((user_count, DIMENSION)).astype(np.float32),
        histories=[
            random.choice(known, int(random.integers(0, 40)), replace=False).tolist()
            for _ in range(user_count)
        ],
    )
    _build(release, folder, save_ranker)
    return release


def _neighbours(row: int, known: list[int], random: np.random.Generator) -> list[tuple[int, float]]:
    count = int(random.integers(0, NEIGHBOURS + 1))
    others = [int(each) for each in random.choice(known, count, replace=False) if each != row]
    # Sixteenths add up without rounding, in whatever order.
    scores = sorted(random.integers(1, 16, len(others)).tolist(), reverse=True)
    return [(other, score / 16) for other, score in zip(others, scores, strict=True)]


def _build(
    release: TastedRelease, folder: Path, save_ranker: Callable[[Path], RankerDescription | None]
) -> None:
    columns = {
        "id": release.ids,
        "embedding": list(release.rows),
        "title": [f"title of {each}" for each in release.ids],
        "year": [1_900 + row for row in range(len(release.ids))],
    }
    pq.write_table(pa.table(columns), folder / "items.parquet")
    order = BuildOrder(
        source=ParquetSource.open(folder / "items.parquet"),
        out=release.path,
        name=release.name,
        metric=Metric.INNER_PRODUCT,
        id_kind=IdKind(release.id_kind),
        shard_count=2,
        index=IndexParameters(),
        recall_target=0.98,
        jobs=1,
        write_extras=_extras_of(release, save_ranker),
    )
    build_release(order, Progress(lambda stage, count: None, lambda count: None))


def _extras_of(
    release: TastedRelease, save_ranker: Callable[[Path], RankerDescription | None]
) -> Callable[[Path], ReleaseExtras]:
    def write(root: Path) -> ReleaseExtras:
        return ReleaseExtras(
            items=_item_tables(release).save(root),
            users=_user_tables(release).save(root),
            ranker=save_ranker(root),
        )

    return write


def _by_key(release: TastedRelease) -> list[int]:
    """Rows of the items in the tables, in the order of the tables."""
    return sorted(release.neighbours, key=lambda row: release.keys[row])


def _item_tables(release: TastedRelease) -> ItemTables:
    order = _by_key(release)
    place_of = {row: place for place, row in enumerate(order)}
    neighbours = np.full((len(order), NEIGHBOURS), -1, np.int32)
    scores = np.zeros((len(order), NEIGHBOURS), np.float32)
    for place, row in enumerate(order):
        for column, (other, score) in enumerate(release.neighbours[row]):
            neighbours[place, column], scores[place, column] = place_of[other], score
    is_text = release.id_kind == "text"
    return ItemTables(
        keys=np.array([release.keys[row] for row in order], np.uint64),
        texts=TextColumn.of(str(release.ids[row]).encode() for row in order) if is_text else None,
        feature_names=("popularity", "activity"),
        features=np.ones((len(order), 2), np.float32),
        neighbours=neighbours,
        neighbour_scores=scores,
        popular=np.array([place_of[row] for row, _ in release.popular], np.int32),
        popular_scores=np.array([score for _, score in release.popular], np.float32),
    )


def _user_tables(release: TastedRelease) -> UserTables:
    place_of = {row: place for place, row in enumerate(_by_key(release))}
    texts = TextColumn.of(user.encode() for user in release.users)
    keys = keys_of_texts(texts)
    order = np.argsort(keys)
    histories = [[place_of[row] for row in release.histories[number]] for number in order.tolist()]
    return UserTables(
        keys=keys[order],
        texts=texts.take(order),
        embeddings=release.embeddings[order],
        history=np.array([place for each in histories for place in each], np.int32),
        history_ends=np.cumsum([len(each) for each in histories]).astype(np.int64),
    )
