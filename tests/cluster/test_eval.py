"""`rangefinder eval` against a real cluster that a small marketplace was trained for."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.marketplace import generate
from rangefinder.release import read_manifest, write_manifest
from tests.kit.commands import rangefinder_all, require_refused
from tests.kit.processes import Cluster, free_port, rangefinder, running_cluster

ITEMS, USERS, PAIRS = 2_000, 400, 24_000
UNKNOWN_USER, UNKNOWN_ITEM = 900_001, 900_002


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """A trained release, its cluster, and the part of the world that was held out."""

    release: Path
    test: Path
    unknown_items: int  # Of the test part.
    cluster: Cluster

    def eval(self, *options: object) -> list[object]:
        where = ("--release", self.release, "--test", self.test, "--address", self.cluster.address)
        return ["eval", *where, *options]


@pytest.fixture(scope="module")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    folder = tmp_path_factory.mktemp("market")
    unknown_items = write_world(folder)
    release = folder / "release"
    files = ("--interactions", folder / "train.csv", "--titles", folder / "titles.csv")
    done = await asyncio.to_thread(rangefinder, "train", *files, "--shards", 3, "--out", release)
    assert done.returncode == 0, done.stderr
    async with running_cluster(release, folder / "data") as cluster:
        yield Market(
            release=release,
            test=folder / "test.csv",
            unknown_items=unknown_items,
            cluster=cluster,
        )


def write_world(folder: Path) -> int:
    """Every tenth interaction is held out; so is one of an unknown user, and one of an unknown item.

    Returns how many items are in the test part alone.
    """
    world = generate(ITEMS, USERS, PAIRS, seed=5)
    world.write(folder)
    rows = np.stack([world.users, world.items], axis=1)
    is_test = np.arange(PAIRS) % 10 == 0
    test = [*rows[is_test].tolist(), [UNKNOWN_USER, 1], [1, UNKNOWN_ITEM]]
    for name, part in (("train", rows[~is_test].tolist()), ("test", test)):
        lines = [f"{user},{item}\n" for user, item in part]
        (folder / f"{name}.csv").write_text("user,item\n" + "".join(lines))
    return len({item for _, item in test} - set(world.items[~is_test].tolist()))


def rows_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in report["rows"]}


async def test_the_table_tells_how_good_a_cluster_is(market: Market) -> None:
    """Structure was learnt: retrieval is better than popularity, the index finds what there is, and
    every list is of all items; the unknown user and item are told and count."""
    done = await asyncio.to_thread(rangefinder, *market.eval("--json"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = rows_of(report)

    assert ["popularity", "retrieval alone", "whole pipeline"] == list(rows)
    assert (1, 0) == (report["unknown_users"], report["known_pairs"])
    assert market.unknown_items == report["unknown_items"] >= 1
    assert USERS * 0.9 < report["users"] <= USERS + 1
    assert rows["popularity"]["ndcg"] * 1.5 < rows["retrieval alone"]["ndcg"]
    assert rows["popularity"]["ndcg"] * 1.5 < rows["whole pipeline"]["ndcg"]
    assert report["index_recall_at_10"] >= 0.98
    assert report["users"] == rows["whole pipeline"]["answers"]
    for name in ("retrieval alone", "whole pipeline"):
        assert (1.0, 1.0) == (rows[name]["coverage_least"], rows[name]["coverage_most"])
        assert 0 < rows[name]["p50_ms"] <= rows[name]["p99_ms"]


async def test_people_get_a_table(market: Market) -> None:
    """Three rows with figures of some users, and in words what they rest on; no progress bar."""
    done = await asyncio.to_thread(rangefinder, *market.eval("--users", 50))

    assert (0, "") == (done.returncode, done.stderr)
    for words in ("50 users, lists of 20", "NDCG@20", "retrieval alone", "whole pipeline", "1.0000"):
        assert words in done.stdout
    assert "Index recall@10" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 200


async def test_a_killed_node_costs_coverage_and_no_request(market: Market) -> None:
    """With one of two nodes dead every request is answered, with the coverage that the map says, and
    less is found; afterwards the cluster is whole again."""
    options = ("--kill-node", "node-1", "--data-dir", market.cluster.data_dir, "--json")
    done = await asyncio.to_thread(rangefinder, *market.eval("--users", 100, *options))
    assert done.returncode == 0, (done.stdout, done.stderr)
    report = json.loads(done.stdout)
    rows, lost = rows_of(report), report["lost_node"]
    without = rows["with node-1 killed"]

    assert 0 == report["failed"]
    assert 0.2 < lost["coverage_by_map"] < 0.8
    assert pytest.approx(lost["coverage_by_map"]) == without["coverage_least"]
    assert without["coverage_least"] == without["coverage_most"]
    assert 0 < without["ndcg"] < rows["whole pipeline"]["ndcg"]
    again = await asyncio.to_thread(rangefinder, *market.eval("--users", 10, "--json"))
    assert 1.0 == rows_of(json.loads(again.stdout))["whole pipeline"]["coverage_least"]


async def test_what_cannot_be_measured_is_refused(market: Market, tmp_path: Path) -> None:
    """Each is one line that says what is wrong, and an exit code."""
    only_strangers = tmp_path / "strangers.csv"
    only_strangers.write_text("user,item\n900001,1\n900003,2\n900003,3\n")
    vectors = tmp_path / "vectors.npy"
    np.save(vectors, np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32))
    plain = tmp_path / "plain"
    built = ("build", "--embeddings", vectors, "--metric", "ip", "--shards", 1, "--out", plain)
    assert (await asyncio.to_thread(rangefinder, *built)).returncode == 0
    trained = (market.test.parent / "train.csv").resolve()
    nobody = f"127.0.0.1:{free_port()}"
    where = ("--address", market.cluster.address)
    data_dir = market.cluster.data_dir
    cases: dict[str, tuple[list[object], str]] = {
        "strangers": (["--test", only_strangers], "none of its 2 users is known"),
        "trained": (["--test", trained], "trained on every pair"),
        "absent": (["--test", tmp_path / "none.txt"], "none.txt"),
        "no users": (["--release", plain], "a release without users"),
        "no release": (["--release", tmp_path / "nothing"], "no such file"),
        "nobody": (["--address", nobody], "does not answer"),
        "no node": (["--kill-node", "node-7", "--data-dir", data_dir], "no such node"),
        "no folder": (["--kill-node", "node-1", "--data-dir", tmp_path], "map.json"),
    }
    given: list[object] = ["--release", market.release, "--test", market.test, *where]
    done = await rangefinder_all(
        {name: ["eval", *given, *options] for name, (options, _) in cases.items()}
    )

    for name, (_, words) in cases.items():
        require_refused(done[name], words)


async def test_another_release_than_the_served_one_is_refused(market: Market, tmp_path: Path) -> None:
    """Figures are never of another release than the one that was named."""
    other = tmp_path / "other"
    shutil.copytree(market.release, other)
    write_manifest(other, replace(read_manifest(other), name="other"))
    done = await asyncio.to_thread(rangefinder, *market.eval(), "--release", other)

    require_refused(done, "serves release release of", "not other of")
