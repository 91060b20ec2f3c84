"""Training on real interactions (MovieLens 1M, pairs without ratings), judged by the test part that the
release never saw. The oracle reads the files of the release with NumPy alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.kit.commands import rangefinder_here
from tests.kit.loaded import load
from tests.kit.oracle import splitmix64
from tests.kit.real_sets import real_set
from training.metrics import quality_of

SET = "ml-1m"
ASKED_USERS = 300

Embeddings = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A release from the training part, and what the command said."""
    folder, out = real_set(SET), tmp_path_factory.mktemp("movielens") / "release"
    done = rangefinder_here(
        *("train", "--interactions", folder / "train.txt", "--out", out, "--json"),
        *("--titles", folder / "movies.dat", "--titles-id-offset", 1),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return out, json.loads(done.stdout)


def pairs_of(name: str) -> dict[int, list[int]]:
    lines = [line.split() for line in (real_set(SET) / name).read_text().splitlines()]
    return {int(line[0]): [int(item) for item in line[1:]] for line in lines}


def embeddings_of(release: Path) -> tuple[Embeddings, Embeddings, dict[int, int]]:
    """Of users by number, and of items, with the row of each item's id."""
    texts, ends = (np.load(release / "users" / f"{name}.npy") for name in ("texts", "text_ends"))
    starts = np.concatenate([[0], ends[:-1]])
    ids = [int(texts[start:end].tobytes()) for start, end in zip(starts, ends, strict=True)]
    users = np.load(release / "users/embeddings.npy")[np.argsort(ids)]
    (segment,) = (release / "shards").glob("*/*")
    row_of_key = {int(key): row for row, key in enumerate(np.load(segment / "keys.npy"))}
    items = {item: row_of_key.get(splitmix64(item), -1) for item in range(3952)}
    return users, np.load(segment / "rows.npy"), {item: row for item, row in items.items() if row >= 0}


def test_retrieval_alone_is_as_good_as_promised(trained: tuple[Path, dict[str, Any]]) -> None:
    """NDCG@20 of the embeddings is at least 0.37 on the test part (popularity: 0.193), and every item
    has its title."""
    path, told = trained
    users, items, row_of = embeddings_of(path)
    assert len(items) == len(row_of) == told["titles"] == 3_675
    scores = users @ items.T
    for user, had in pairs_of("train.txt").items():
        scores[user, [row_of[item] for item in had]] = -np.inf
    recommended = np.argsort(-scores, axis=1)[:, :20]
    # Of items that occur only in the test part nothing can be known: numbers beyond the rows.
    relevant = [
        np.array([row_of.get(item, 10_000 + item) for item in items_of])
        for _, items_of in sorted(pairs_of("test.txt").items())
    ]

    quality = quality_of(recommended.astype(np.int64), relevant)

    assert float(quality.ndcg.mean()) >= 0.37


def test_the_index_finds_what_is_best(trained: tuple[Path, dict[str, Any]]) -> None:
    """Recall@10 of the default width against exact answers is at least 0.98 over users."""
    path, _ = trained
    users, _, _ = embeddings_of(path)
    release, found = load(path), 0
    for user in np.random.default_rng(6).choice(len(users), ASKED_USERS, replace=False):
        exact = release.search(users[user], 10, exact=True)
        found += sum(score >= exact[-1][1] for _, score in release.search(users[user], 10, exact=False))
    assert found / (10 * ASKED_USERS) >= 0.98


def test_item_to_item_knows_more_than_popularity(trained: tuple[Path, dict[str, Any]]) -> None:
    """On what was held out of the training part, both sources are far better than popularity."""
    ndcg = trained[1]["validation"]["ndcg_at_20"]
    assert ndcg["index"] > 1.5 * ndcg["popularity"]
    assert ndcg["item_to_item"] > 1.5 * ndcg["popularity"]
