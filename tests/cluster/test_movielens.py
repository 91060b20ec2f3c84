"""The whole way on real interactions: MovieLens 1M, trained, served and judged by the real commands."""

import asyncio
import json
from pathlib import Path

from tests.kit.processes import rangefinder, running_cluster
from tests.kit.real_sets import real_set

USERS, FILMS = 6_040, 3_675  # Some films occur in the test part alone.


async def test_movielens_is_served_as_well_as_is_claimed(tmp_path: Path) -> None:
    """Retrieval alone reaches an NDCG@20 of 0.37, the ranker adds at least 1 % and for certain, the
    index finds what there is, and every user gets an answer about every film."""
    films, release = real_set("ml-1m"), tmp_path / "release"
    options = ("--interactions", films / "train.txt", "--shards", 2, "--out", release, "--json")
    titles = ("--titles", films / "movies.dat", "--titles-id-offset", 1)
    trained = await asyncio.to_thread(rangefinder, "train", *options, *titles, timeout_s=600)
    assert (0, "") == (trained.returncode, trained.stderr)
    assert FILMS == json.loads(trained.stdout)["titles"]
    async with running_cluster(release, tmp_path / "cluster") as cluster:
        given = ("--release", release, "--test", films / "test.txt", "--address", cluster.address)
        done = await asyncio.to_thread(rangefinder, "eval", *given, "--json", timeout_s=600)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    popular, retrieved, ranked = report["rows"]

    assert (USERS, 0, 0) == (report["users"], report["unknown_users"], report["failed"])
    assert 0.193 == round(popular["ndcg"], 3)
    assert retrieved["ndcg"] >= 0.37
    assert ranked["ndcg_difference_percent"]["mean"] >= 1.0
    assert ranked["ndcg_difference_percent"]["low"] > 0.0
    assert report["index_recall_at_10"] >= 0.98
    assert {} == ranked["degradations"]
    assert [1.0] * 2 == [row["coverage_least"] for row in (retrieved, ranked)]
    assert 1 == len(ranked["rankers"]) and "" not in ranked["rankers"]
