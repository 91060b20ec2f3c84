"""Catalogues that look for trouble: duplicates, zero, huge and tiny rows, ids at both ends of int64.

Seeded: the same arguments give the same catalogue. Keys are those of the oracle, not of the product.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from benchmarks.worlds import generate
from tests.kit.oracle import splitmix64

Rows = npt.NDArray[np.float32]
Ids = list[int] | list[str]

DIMENSION = 24
QUERY_COUNT = 500
PLAIN_COUNT = 5_500

# Scripts, marks that combine, signs beyond 16 bits, and what some programs take for the end of a line.
_TEXT_PARTS = ("ä", "ß", "日本", "क्ष", "e\u0301", "🙂", "\u2028", "\t", " ", "'\"", "\\n", "\x7f", "a")
TEXT_BYTES_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Items, and queries for them."""

    metric: str
    id_kind: str
    ids: Ids
    keys: list[int]  # Beside `ids`.
    rows: Rows  # Shape (items, dimension).
    queries: Rows  # Shape (queries, dimension).

    def rows_of(self, ids: Iterable[int] | Iterable[str]) -> list[int]:
        """Rows of some items, in their order."""
        row_of_id = dict(zip(self.ids, range(len(self.ids)), strict=True))
        return [row_of_id[each] for each in ids]

    def write(self, folder: Path) -> list[object]:
        """Write the files that `rangefinder build` reads; returns the options that name them."""
        folder.mkdir(parents=True)
        np.save(folder / "embeddings.npy", self.rows)
        ids = folder / ("ids.txt" if self.id_kind == "text" else "ids.npy")
        if self.id_kind == "text":
            ids.write_bytes("\n".join(str(each) for each in self.ids).encode())
        else:
            np.save(ids, np.array(self.ids, np.int64))
        return [
            *("--embeddings", folder / "embeddings.npy", "--ids", ids),
            *("--metric", self.metric, "--id-kind", self.id_kind),
        ]


def key_of(item_id: int | str, id_kind: str) -> int:
    """The key that DESIGN.md gives an id."""
    if isinstance(item_id, str):
        return int(xxhash.xxh3_64_intdigest(item_id.encode()))
    return splitmix64(item_id) if id_kind == "integer" else item_id + 2**63


def nasty_catalogue(metric: str, id_kind: str, seed: int) -> Catalogue:
    """About 6,000 items of all sorts, in random order, and queries like them."""
    random = np.random.default_rng(seed)
    world = generate(PLAIN_COUNT, DIMENSION, query_count=QUERY_COUNT, seed=seed)
    plain = world.rows
    directions = random.standard_normal((52, DIMENSION))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rows = np.concatenate(
        [
            plain,
            np.repeat(plain[:1], 150, axis=0),  # More equal items than most answers are long.
            np.repeat(plain[1:101], 2, axis=0),
            plain[200:250] * np.float32(0.25),  # Equal under cosine, to the last bit.
            -plain[300:320],
            np.zeros((3, DIMENSION)),
            directions[:12] * 10.0 ** random.uniform(15, 17, (12, 1)),
            directions[12:16]
            * 1.5e19,  # Whose squares float32 just holds; their distances it does not.
            directions[16:] * 10.0 ** random.uniform(-40, -3, (36, 1)),
        ]
    ).astype(np.float32)
    rows = rows[random.permutation(len(rows))]
    queries = world.queries.copy()
    queries[:10] = rows[:10]  # Items themselves.
    queries[10] = 0
    queries[11:14] *= np.float32(1e16)
    queries[14:17] *= np.float32(1e-30)
    queries[17:20] = -rows[17:20]
    queries[20:24] = directions[12:16] * -1.2e19
    ids = _texts(len(rows), random) if id_kind == "text" else _integers(len(rows), random)
    return catalogue_of(metric, id_kind, ids, rows, queries)


def plain_catalogue(metric: str, item_count: int, dimension: int, seed: int) -> Catalogue:
    """A generated world as it is, under integer ids from 0."""
    world = generate(item_count, dimension, query_count=QUERY_COUNT, seed=seed)
    return catalogue_of(metric, "integer", list(range(item_count)), world.rows, world.queries)


def catalogue_of(metric: str, id_kind: str, ids: Ids, rows: Rows, queries: Rows) -> Catalogue:
    return Catalogue(
        metric=metric,
        id_kind=id_kind,
        ids=ids,
        keys=[key_of(each, id_kind) for each in ids],
        rows=rows,
        queries=queries,
    )


def _integers(count: int, random: np.random.Generator) -> list[int]:
    """Different ids, sparse, half of them negative, with both ends of int64."""
    ends = [-(2**63), 2**63 - 1, -(2**63) + 1, 2**63 - 2, -1, 0, 1]
    drawn = random.integers(-(2**63), 2**63 - 1, count).tolist()
    return list(dict.fromkeys([*ends, *drawn]))[:count]


def _texts(count: int, random: np.random.Generator) -> list[str]:
    """Different texts of 1 to 256 bytes, many of them long."""
    texts = {"a": None, " ": None, "é": None, "e\u0301": None, "x" * TEXT_BYTES_MAX: None}
    while len(texts) < count:
        parts = random.choice(_TEXT_PARTS, random.integers(1, 160))
        text = "".join([f"{len(texts)}", *parts.tolist()])
        while len(text.encode()) > TEXT_BYTES_MAX:
            text = text[:-1]
        texts[text] = None
    return list(texts)
