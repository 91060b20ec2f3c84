"""Commands that ask a cluster: what they print for people and for programs, and how they fail."""

import json
import re
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.worlds import World, generate
from rangefinder.map_file import read_map
from tests.kit import oracle
from tests.kit.commands import Done, rangefinder_all, rangefinder_here, require_refused
from tests.kit.processes import free_port, rangefinder, running_cluster
from tests.kit.small_release import SmallRelease, build_small_release

Asked = dict[str, Done]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def release(folder: Path) -> SmallRelease:
    """Ids are integers; items have no attributes."""
    return build_small_release(folder)


@pytest.fixture(scope="module")
async def address(folder: Path, release: SmallRelease) -> AsyncIterator[str]:
    async with running_cluster(release.path, folder / "data") as cluster:
        yield cluster.address


WORDS = ("item 3", "Käse-Regal", "42", "[bold]no markup[/bold] [/x] :tea:", "a,b;c  d")


@pytest.fixture(scope="module")
def texts() -> World:
    return generate(500, 8, query_count=1, seed=12)


@pytest.fixture(scope="module")
async def text_address(folder: Path, texts: World) -> AsyncIterator[str]:
    """A cluster whose ids are texts, with titles and other attributes."""
    ids = [*WORDS, *(f"item number {row}" for row in range(len(WORDS), 500))]
    columns = {
        "id": ids,
        "embedding": list(texts.rows),
        "year": [1_900 + row for row in range(500)],
        "title": texts.titles(),
        "tags": [["red", "green"][: row % 3] for row in range(500)],
    }
    pq.write_table(pa.table(columns), folder / "texts.parquet")
    built = rangefinder(
        *("build", "--items", folder / "texts.parquet", "--metric", "cosine"),
        *("--out", folder / "texts"),
    )
    assert built.returncode == 0, built.stderr
    async with running_cluster(folder / "texts", folder / "text-data", node_count=1) as cluster:
        yield cluster.address


def rows_of_table(text: str) -> list[list[str]]:
    """Cells of the rows of tables, without their headings."""
    return [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in text.splitlines()
        if line.startswith("│")
    ]


async def test_neighbours_of_an_item(address: str, release: SmallRelease) -> None:
    """`retrieve --like` shows the true neighbours, best first and the item left out, and says what was
    searched; --json has the same for programs; --exclude leaves out more."""
    like = ("retrieve", "--like", 42, "--exact", "--count", 5, "--address", address)
    scores = oracle.scores("l2", release.rows, release.rows[42])
    near = oracle.best(scores, release.keys, 7, frozenset([42]))
    without = ("--exclude", near[0][0], "--exclude", near[2][0])

    done = await rangefinder_all(
        {"table": like, "json": (*like, "--json"), "excluded": (*like, *without, "--json")}
    )

    assert [(each.returncode, each.stderr) for each in done.values()] == [(0, "")] * 3
    table = rows_of_table(done["table"].stdout)
    assert [row[:2] for row in table] == [[str(n + 1), str(near[n][0])] for n in range(5)]
    assert [float(row[2]) for row in table] == pytest.approx([s for _, s in near[:5]], rel=1e-3)
    assert "searched 5,000 of 5,000 items (100.0%) of release 'release'" in done["table"].stdout
    printed = json.loads(done["json"].stdout)
    assert [(item["id"], item["score"]) for item in printed["items"]] == near[:5]
    certificate = printed["certificate"]
    assert (certificate["coverage"], certificate["missed_ranges"]) == (1.0, [])
    assert (certificate["map_epoch"], certificate["release"]) == (1, "release")
    excluded = json.loads(done["excluded"].stdout)
    assert [item["id"] for item in excluded["items"]] == [
        row for row, _ in near if row not in (near[0][0], near[2][0])
    ]


async def test_neighbours_of_an_embedding(address: str, release: SmallRelease, tmp_path: Path) -> None:
    """`retrieve --query` takes a vector or a row of a matrix of any numbers; a width of 0 holds its
    recall, and says how much it is."""
    np.save(tmp_path / "one.npy", release.queries[3])
    np.save(tmp_path / "all.npy", release.queries.astype(np.float64))
    ask = ("retrieve", "--json", "--address", address, "--query")

    done = await rangefinder_all(
        {
            "vector": (*ask, tmp_path / "one.npy", "--exact"),
            "row": (*ask, tmp_path / "all.npy", "--row", 3, "--exact"),
            "index": (*ask, tmp_path / "all.npy", "--row", 3),
        }
    )

    scores = oracle.scores("l2", release.rows, release.queries[3])
    near = oracle.best(scores, release.keys, 10)
    found = {name: json.loads(each.stdout) for name, each in done.items()}
    for name in ("vector", "row"):
        assert [(item["id"], item["score"]) for item in found[name]["items"]] == near
    assert len({item["id"] for item in found["index"]["items"]} & {row for row, _ in near}) >= 8
    assert found["index"]["certificate"]["estimated_recall"] > 0.98


async def test_items_by_id(address: str, release: SmallRelease) -> None:
    """`items get` shows items however their integer is written; one that does not exist is named, and
    makes the exit code 1."""
    get = ("items", "get", "--address", address)

    done = await rangefinder_all(
        {
            "all there": (*get, 7, "007", "12", "--json", "--embeddings"),
            "one missing": (*get, 7, "00123456"),
            "negative": (*get, "--", -5),
        }
    )

    assert done["all there"].returncode == 0
    printed = json.loads(done["all there"].stdout)
    assert [item["id"] for item in printed["items"]] == [7, 7, 12]
    assert printed["missing"] == printed["unread"] == []
    assert np.float32(printed["items"][2]["embedding"]).tolist() == release.rows[12].tolist()
    assert done["one missing"].returncode == 1
    assert rows_of_table(done["one missing"].stdout) == [["7"]]
    assert "\n123456: no such item\n" in done["one missing"].stdout
    assert (done["negative"].returncode, done["negative"].stderr) == (1, "")
    assert "\n-5: no such item\n" in done["negative"].stdout


async def test_items_with_texts_as_ids(text_address: str, texts: World) -> None:
    """Text ids are taken and shown as they are, attributes stand in columns, titles first; what looks
    like markup is none."""
    get = ("items", "get", "--address", text_address)
    like = ("retrieve", "--exact", "--address", text_address, "--like")

    done = await rangefinder_all(
        {
            "get": (*get, *WORDS, "nowhere"),
            "json": (*get, *WORDS, "--json"),
            "like": (*like, WORDS[1]),
            "like as JSON": (*like, WORDS[1], "--json", "--exclude", WORDS[0]),
        }
    )

    assert done["get"].returncode == 1
    assert [row[0] for row in rows_of_table(done["get"].stdout)] == list(WORDS)
    assert "nowhere: no such item" in done["get"].stdout
    found = json.loads(done["json"].stdout)["items"]
    assert [item["id"] for item in found] == list(WORDS)
    assert found[2]["attributes"] == {
        "year": 1_902,
        "title": texts.titles()[2],
        "tags": ["red", "green"],
    }
    assert re.search("#.*id.*score.*title.*tags.*year", done["like"].stdout)
    near = [item["id"] for item in json.loads(done["like as JSON"].stdout)["items"]]
    scores = oracle.scores("cosine", texts.rows, texts.rows[1])
    keys = list(range(500))  # No two scores are equal.
    best = [row for row, _ in oracle.best(scores, keys, 10, frozenset([0, 1]))]
    assert near == [WORDS[row] if row < len(WORDS) else f"item number {row}" for row in best]


async def test_status_shows_every_replica(address: str) -> None:
    """`status` of a whole cluster exits with 0 and shows nodes, shards, items and recall; JSON too."""
    done = await rangefinder_all(
        {
            "table": ("status", "--address", address),
            "json": ("status", "--json", "--address", address),
        }
    )

    assert [each.returncode for each in done.values()] == [0, 0]
    text = done["table"].stdout
    assert text.startswith("cluster local, map epoch 1, release release, 5,000 items in 4 shards\n")
    rows = rows_of_table(text)
    assert [(row[0], row[2]) for row in rows[:2]] == [("node-0", "yes"), ("node-1", "yes")]
    assert [(row[0], row[2], row[3], row[4]) for row in rows[2:]] == [
        (f"s-{shard}", f"node-{shard % 2}", "yes", "1250") for shard in (0, 2, 1, 3)
    ]
    assert all(float(row[-1]) >= 0.98 for row in rows[2:])
    printed: dict[str, Any] = json.loads(done["json"].stdout)
    assert [replica["healthy"] for replica in printed["status"]["replicas"]] == [True] * 4
    assert [shard["name"] for shard in printed["cluster_map"]["shards"]] == ["s-0", "s-1", "s-2", "s-3"]


def write_queries(folder: Path) -> None:
    """Files that are no query of 16 finite numbers."""
    np.save(folder / "nine.npy", np.ones((3, 9)))
    np.save(folder / "deep.npy", np.ones((2, 2, 16)))
    np.save(folder / "large.npy", np.full(16, 1e300))
    np.save(folder / "good.npy", np.ones((3, 16)))
    np.savez(folder / "archive.npz", a=np.ones(16))
    (folder / "empty.npy").touch()
    content = (folder / "good.npy").read_bytes()
    (folder / "cut.npy").write_bytes(content[:-4])
    (folder / "broken.npy").write_bytes(content.replace(b"), }", b" , }", 1))


REFUSED: dict[str, tuple[Sequence[object], str]] = {
    "another kind of id": (
        ("retrieve", "--like", "abc"),
        "ids of this cluster are integers: 'abc' is not",
    ),
    "an id too large": (("items", "get", 10**20), f"{10**20} does not fit into an int64"),
    "too many ids": (("items", "get", *range(1_001)), "items: 1001 ids: at most 1000"),
    "no such item": (("retrieve", "--like", 987_654), "--like 987654: no such item"),
    "a strange exclusion": (("retrieve", "--like", 1, "--exclude", "x"), "integers: 'x' is not"),
    "coverage over 1": (("retrieve", "--like", 1, "--minimum-coverage", 1.5), "1.5 is not in [0, 1]"),
    "width under count": (
        ("retrieve", "--like", 1, "--width", 9),
        "search_width: 9 is not in [10, 10000]",
    ),
    "no address": (("status", "--address", ""), "--address is empty"),
    **{
        f"query {name}": (("retrieve", "--query", name), words)
        for name, words in {
            "none.npy": "none.npy: no such file",
            "empty.npy": "empty.npy: the file is empty",
            "cut.npy": "cut.npy: not a whole .npy file",
            "broken.npy": "broken.npy: not a whole .npy file",
            "archive.npz": "archive.npz: not a whole .npy file",
            "deep.npy": "deep.npy: no row 0 of numbers in an array of shape (2, 2, 16)",
            "nine.npy": "9 values, but embeddings of release release have 16",
            "large.npy": "query.values: row 0 holds NaN, an infinity",
        }.items()
    },
    "row beyond": (("retrieve", "--query", "good.npy", "--row", 3), "good.npy: no row 3 of numbers"),
}


@pytest.fixture(scope="module")
async def refused(address: str, text_address: str, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """Every command that must fail, run as a process of its own."""
    files = tmp_path_factory.mktemp("queries")
    write_queries(files)
    commands: dict[str, Sequence[object]] = {}
    for name, (command, _) in REFUSED.items():
        found = [
            files / str(word) if str(word).endswith((".npy", ".npz")) else word for word in command
        ]
        commands[name] = (
            *found[:1],
            *(() if "--address" in found else ("--address", address)),
            *found[1:],
        )
        if found[0] == "items":
            commands[name] = (*found, "--address", address)
    commands["nobody"] = ("status", "--address", f"127.0.0.1:{free_port()}")
    commands["id not UTF-8"] = ("items", "get", "caf\udce9", "--address", text_address)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # Takes the call and never answers.
        asked = ("status", "--address", f"127.0.0.1:{silent.getsockname()[1]}")
        commands["no time"] = (*asked, "--deadline", 0.2)
        return await rangefinder_all(commands)


def test_who_never_answers_is_not_waited_for(refused: Asked) -> None:
    """A command gives up at its deadline, in one line."""
    require_refused(refused["no time"], "[DEADLINE_SPENT]")


@pytest.mark.parametrize("name", REFUSED)
def test_bad_questions_are_refused_in_one_line(refused: Asked, name: str) -> None:
    """A command that cannot ask what it was told to, or is refused, says why in one line."""
    require_refused(refused[name], REFUSED[name][1])


def test_an_address_where_nobody_answers(refused: Asked) -> None:
    """The line says so, and what to do."""
    require_refused(refused["nobody"], "does not answer", "start a cluster with `rangefinder up`")


def test_an_id_that_is_no_text(refused: Asked) -> None:
    """Bytes that are no UTF-8 cannot be an id."""
    require_refused(refused["id not UTF-8"], "is not UTF-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("retrieve",), "give either --like or --query"),
        (("retrieve", "--like", 1, "--query", "q.npy"), "give either --like or --query"),
        (("retrieve", "--like", 1, "--count", 0), "Invalid value for '--count': 0 is not in the range"),
        (("retrieve", "--like", 1, "--count", -1), "Invalid value for '--count': -1 is not in"),
        (
            ("retrieve", "--like", 1, "--count", 10**11),
            f"Invalid value for '--count': {10**11} is not in",
        ),
        (
            ("retrieve", "--like", 1, "--count", "ten"),
            "Invalid value for '--count': 'ten' is not a valid",
        ),
        (
            ("retrieve", "--like", 1, "--width", 10**11),
            f"Invalid value for '--width': {10**11} is not in",
        ),
        (("retrieve", "--query", "q.npy", "--row", -1), "Invalid value for '--row': -1 is not in"),
        (("status", "--deadline", 0), "Invalid value for '--deadline': 0.0 is not in the range"),
        (("items", "get"), "Missing argument 'IDS...'"),
        (("items", "put", 1), "No such command 'put'"),
        (("recall",), "No such command 'recall'"),
        (("up", "--release", "r", "--data-dir", "d", "--port", 65_536), "Invalid value for '--port'"),
    ],
)
def test_misuse_is_explained(arguments: Sequence[object], words: str) -> None:
    """Options that make no sense: exit code 2, why, and where to find help, before anyone is asked."""
    done = rangefinder_here(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"\n\nError: {words}" in done.stderr
    assert "--help' for help." in done.stderr


def test_a_map_for_other_nodes(release: SmallRelease, tmp_path: Path) -> None:
    """`map` writes a map that processes can read; the same arguments give the same map."""
    place = ("map", "--release", release.path, "--nodes", 3, "--replicas", 2)
    address = ("--name", "n-{index}", "--address", "n-{index}.nodes:7100")
    for name in ("one.json", "two.json"):
        assert rangefinder_here(*place, *address, "--out", tmp_path / name).returncode == 0

    cluster_map = read_map(tmp_path / "one.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert [node.address for node in cluster_map.nodes] == [f"n-{n}.nodes:7100" for n in range(3)]
    assert all(len(shard.replicas) == 2 for shard in cluster_map.shards)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"release": "none"}, "none/release.yaml: no such file"),
        ({"replicas": 4}, "4 replicas need as many nodes: 2 is too few"),
        ({"address": "n-{number}:1"}, "only {index} may stand in braces"),
        ({"address": "n-{index.real.x}:1"}, "only {index} may stand in braces"),
        ({"address": "n-{:1"}, "only {index} may stand in braces"),
        ({"address": "n-{index}"}, "nodes.0.address: "),
        ({"name": "n"}, "node n stands twice in the map"),
        ({"name": "a/{index}"}, "shards.0.replicas.0.node: "),
        ({"cluster": "no name"}, "cluster: "),
        ({"out": "none/map.json"}, "none/map.json: no such file or directory"),
    ],
)
def test_a_map_that_cannot_be_is_refused(
    release: SmallRelease, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    """`map` writes nothing that a process would refuse."""
    given = {"release": release.path, "address": "n-{index}:1", "out": "map.json"} | options
    paths = {name: tmp_path / str(given[name]) for name in ("out", "release")}
    done = rangefinder_here("map", *(f"--{name}={value}" for name, value in (given | paths).items()))
    require_refused(done, words)
    assert list(tmp_path.iterdir()) == []
