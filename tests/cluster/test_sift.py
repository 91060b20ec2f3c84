"""Real embeddings: SIFT descriptors of photos (Caltech-101), under the squared distance."""

from collections.abc import AsyncIterator

import numpy as np
import numpy.typing as npt
import pytest

from tests.kit.nasty_world import catalogue_of
from tests.kit.real_sets import real_set
from tests.kit.served import DEADLINE_S, Served, build, serving

SET = "sift-caltech-200k"
ROW_COUNT = 60_000  # The first of 200,000: they are in random order, and a build takes seconds.
QUERY_COUNT = 1_000
BATCH_ROWS = 250
RECALL_TARGET = 0.98

Scores = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
async def sift(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """60,000 descriptors in two shards on two nodes."""
    folder = real_set(SET)
    rows = np.load(folder / "base.npy", mmap_mode="r")[:ROW_COUNT].astype(np.float32)
    queries = np.load(folder / "query.npy")[:QUERY_COUNT].astype(np.float32)
    catalogue = catalogue_of("l2", "integer", list(range(ROW_COUNT)), rows, queries)
    work = tmp_path_factory.mktemp("sift")
    release = await build(catalogue, work, "--shards", 2)
    async with serving(release, work / "cluster") as served:
        yield served


async def scores_of_all(served: Served, *, exact: bool) -> Scores:
    """Scores of the ten best items of each query: (queries, 10)."""
    queries, parts = served.catalogue.queries, []
    for start in range(0, QUERY_COUNT, BATCH_ROWS):
        part = queries[start : start + BATCH_ROWS]
        answer = await served.client.retrieve_batch(
            part, 10, exact=exact, minimum_coverage=1.0, deadline_s=DEADLINE_S
        )
        parts.append(answer.scores.reshape(len(part), 10))
    return np.concatenate(parts)


def recall(found: Scores, last_true: Scores) -> float:
    """Mean recall@10 by score: of equal scores any item counts."""
    return float((found >= last_true[:, None]).mean())


async def test_default_width_finds_the_true_neighbours(sift: Served) -> None:
    """Recall@10 at width 0 is at least 0.98 against exact answers and against the published truth."""
    assert "exact" not in sift.release.widths_at_10
    found, exact = await scores_of_all(sift, exact=False), await scores_of_all(sift, exact=True)
    assert recall(found, exact[:, 9]) >= RECALL_TARGET

    # Of the true neighbours among all rows, those among ours are our truth as far as they go.
    folder = real_set(SET)
    neighbours = np.load(folder / "groundtruth.npy")[:QUERY_COUNT]
    distances = np.load(folder / "distances.npy")[:QUERY_COUNT]
    is_ours = neighbours < ROW_COUNT
    has_ten = is_ours.sum(axis=1) >= 10
    assert has_ten.sum() >= 500
    truth = np.array(
        [-row[ours][:10] for row, ours in zip(distances[has_ten], is_ours[has_ten], strict=True)]
    )
    assert (truth == exact[has_ten]).all()
    assert recall(found[has_ten], truth[:, 9]) >= RECALL_TARGET
