"""`rangefinder build`: bad input is refused with a line that says what is wrong; good input works."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.worlds import generate
from tests.kit import oracle
from tests.kit.bad_builds import BAD, NOT_FINITE, ROWS, prepare
from tests.kit.commands import Done, rangefinder_all, rangefinder_here, require_refused
from tests.kit.limited import run_limited
from tests.kit.loaded import load
from tests.kit.remains import descendants, survivors

_POLL_S = 0.01

# One of each kind also runs as a process of its own: what the interpreter would add is seen there.
IN_PROCESSES = ("missing", "cut", "broken header", "NaN", "ids twice", "Parquet damaged", "out is full")


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    """`build` ends with an exit code and one line that names the file and what is wrong with it, and
    leaves everything around --out as it was."""
    arguments = prepare(BAD[name], tmp_path)
    before = tree(tmp_path)

    done = rangefinder_here(*arguments)

    require_refused(done, BAD[name].words)
    assert tree(tmp_path) == before


async def test_bad_input_is_refused_by_a_real_process(tmp_path: Path) -> None:
    """The same from a shell, where nobody catches what the command lets through."""
    commands = {name: prepare(BAD[name], tmp_path / name) for name in IN_PROCESSES}
    before = tree(tmp_path)

    done = await rangefinder_all(commands)

    for name, each in done.items():
        require_refused(each, BAD[name].words)
    assert tree(tmp_path) == before


MISUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "neither source": (("--metric=l2", "--out=o"), "give either --embeddings or --items"),
    "both sources": (
        ("--embeddings=x.npy", "--items=x.parquet", "--metric=l2", "--out=o"),
        "give either --embeddings or --items",
    ),
    "ids of a table": (
        ("--items=x.parquet", "--ids=i.npy", "--metric=l2", "--out=o"),
        "--ids goes with --embeddings",
    ),
    "no metric": (("--embeddings=x.npy", "--out=o"), "Missing option '--metric'"),
    "no out": (("--embeddings=x.npy", "--metric=l2"), "Missing option '--out'"),
    "strange metric": (
        ("--embeddings=x.npy", "--metric=hamming", "--out=o"),
        "Invalid value for '--metric': 'hamming' is not one of",
    ),
    "no shards": (
        ("--embeddings=x.npy", "--metric=l2", "--shards=0", "--out=o"),
        "Invalid value for '--shards': 0 is not in the range",
    ),
    "full recall": (
        ("--embeddings=x.npy", "--metric=l2", "--recall-target=1", "--out=o"),
        "Invalid value for '--recall-target': 1.0 is not in",
    ),
    "strange option": (("--embedding-file=x.npy",), "No such option"),
    "strange name": (
        ("--embeddings=x.npy", "--metric=l2", "--name=a/b", "--out=o"),
        "--name 'a/b': letters, digits",
    ),
}


@pytest.mark.parametrize("name", MISUSED)
def test_misuse_is_explained(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that do not go together: exit code 2, why, and where to find help."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", ROWS)
    arguments, words = MISUSED[name]

    done = rangefinder_here("build", *arguments)

    assert done.returncode == 2
    assert f"\n\nError: {words}" in done.stderr
    assert "Try 'rangefinder build --help' for help." in done.stderr
    assert tree(tmp_path) == ["x.npy"]


@pytest.mark.parametrize(
    "command",
    [(), ("build",), ("up",), ("retrieve",), ("items",), ("items", "get"), ("status",), ("map",)],
)
def test_help_shows_an_example(command: tuple[str, ...]) -> None:
    """`--help` of every command ends well and shows the command as it is typed."""
    done = rangefinder_here(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"  rangefinder {' '.join(command)}" in done.stdout.split("Options:", 1)[bool(command)]


def zero_rows() -> npt.NDArray[np.float32]:
    rows = generate(1_200, 8, query_count=1, seed=6).rows
    rows[[3, 500, 1_199]] = 0
    return rows


UNIFORM = generate(1_100, 8, query_count=20, seed=7)
BYTES = np.random.default_rng(8).integers(0, 256, (1_100, 8))

GOOD: dict[str, tuple[npt.NDArray[Any], str]] = {
    "cosine with zeros": (zero_rows(), "cosine"),
    "one item": (UNIFORM.rows[:1], "l2"),
    "uint8": (BYTES.astype(np.uint8), "l2"),
    "float16": (UNIFORM.rows.astype(np.float16), "ip"),
    "big-endian float64 by columns": (np.asfortranarray(UNIFORM.rows.astype(">f8")), "cosine"),
}


@pytest.fixture(scope="module")
async def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Done]]:
    """Every good input as a release of its name."""
    folder = tmp_path_factory.mktemp("good")
    commands: dict[str, tuple[object, ...]] = {}
    for name, (rows, metric) in GOOD.items():
        np.save(folder / f"{name}.npy", rows)
        commands[name] = (
            *("build", "--embeddings", folder / f"{name}.npy", "--metric", metric),
            *("--out", folder / name, "--json"),
        )
    return folder, await rangefinder_all(commands)


@pytest.mark.parametrize("name", GOOD)
def test_good_input_gives_right_answers(built: tuple[Path, dict[str, Done]], name: str) -> None:
    """Whatever the numbers are stored as, exact answers are those of brute force over their float32;
    a zero vector is as good an item or query as others. What --json prints tells what was built."""
    folder, done = built
    assert done[name].returncode == 0, done[name].stderr
    assert done[name].stderr == ""
    rows, metric = GOOD[name][0].astype(np.float32), GOOD[name][1]
    release = load(folder / name)
    keys = [oracle.splitmix64(row) for row in range(len(rows))]
    queries = [*rows[:10], np.zeros(8, np.float32), *UNIFORM.queries]

    for query in queries:
        truth = oracle.best(oracle.scores(metric, rows, query), keys, 10)
        expected = [(keys[row], score) for row, score in truth]
        assert release.search(query, 10, exact=True) == expected

    printed = json.loads(done[name].stdout)
    assert printed["items"] == len(rows)
    assert printed["path"] == str(folder / name)
    assert [segment["items"] for segment in printed["segments"]] == [len(rows)]
    assert all(segment["width_at_10"] for segment in printed["segments"])


def test_what_is_built_can_be_served(tmp_path: Path) -> None:
    """Also where items that were held out as probes are hard to find in the whole index, as with inner
    products here: the width of 0 is wide enough for the recall that a node asks for."""
    np.save(tmp_path / "x.npy", generate(1_100, 8, query_count=1, seed=2).rows)
    options = ("--embeddings", tmp_path / "x.npy", "--metric", "ip", "--out", tmp_path / "out")
    assert rangefinder_here("build", *options).returncode == 0
    load(tmp_path / "out")


def test_rows_are_read_in_blocks(tmp_path: Path) -> None:
    """A file of 256 MB is read to its last row by a process that may grow by 96 MB."""
    path = tmp_path / "x.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (250_000, 256))
    rows[-1, 0] = np.nan  # So that the build ends when all was read; the rest is a hole in the file.
    del rows

    build = ("build", "--embeddings", path, "--metric", "l2", "--out", tmp_path / "out")
    in_blocks = run_limited("data", 96 << 20, *build)
    at_once = run_limited("data", 96 << 20, "load", path)

    require_refused(in_blocks, f"x.npy: row 249999: {NOT_FINITE}")
    assert "Unable to allocate 244. MiB" in at_once.stderr


READ_ITEMS = """
import sys
from pathlib import Path
import pyarrow
from shard_server.build.parquet_source import ParquetSource

source = ParquetSource.open(Path(sys.argv[1]))
rows = len(source.ids()), sum(len(block.rows) for block in source.blocks())
print(*rows, pyarrow.default_memory_pool().max_memory())
"""


def test_a_table_is_read_in_blocks(tmp_path: Path) -> None:
    """A Parquet file of one group of rows is read with a third of its size in memory."""
    values = np.random.default_rng(9).standard_normal(400_000 * 64, dtype=np.float32)
    columns = {"id": np.arange(400_000), "embedding": pa.FixedSizeListArray.from_arrays(values, 64)}
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=400_000)

    read = subprocess.run(
        [sys.executable, "-c", READ_ITEMS, path], capture_output=True, text=True, check=True
    )

    id_count, row_count, bytes_at_most = map(int, read.stdout.split())
    assert (id_count, row_count) == (400_000, 400_000)
    assert bytes_at_most < path.stat().st_size // 3


def test_a_full_disk_fails_the_build(tmp_path: Path) -> None:
    """A file that cannot be written whole, such as the index, which its library does not notice, fails
    the build: no release of what was written is left."""
    np.save(tmp_path / "x.npy", generate(1_500, 16, query_count=1, seed=10).rows)
    parent = tmp_path / "parent"
    parent.mkdir()
    build = ("build", "--embeddings", tmp_path / "x.npy", "--metric", "l2", "--out", parent / "out")

    rows_cut = run_limited("file", 50_000, *build)
    index_cut = run_limited("file", 200_000, *build)

    require_refused(rows_cut, "file too large")
    require_refused(index_cut, "index.hnsw: 200000 of ", "is the disk full?")
    assert tree(parent) == []


@pytest.mark.parametrize(
    ("send", "moment"),
    [(os.killpg, "starting"), (os.killpg, "indexing"), (os.kill, "indexing")],
)
def test_an_interrupted_build_ends_at_once(
    tmp_path: Path, send: Callable[[int, int], None], moment: str
) -> None:
    """Ctrl-C, or SIGINT to the command alone, while its processes start or build: it ends at once with
    one word, leaves nothing, and no process goes on."""
    np.save(tmp_path / "x.npy", generate(60_000, 32, query_count=1, seed=11).rows)
    parent = tmp_path / "parent"
    parent.mkdir()
    command = [
        *(sys.executable, "-m", "rangefinder.cli.main", "build", "--metric", "l2", "--shards", "2"),
        *("--embeddings", str(tmp_path / "x.npy"), "--out", str(parent / "out")),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as building:
        while len(started := descendants(building.pid)) < 3 or not (
            moment == "starting" or list(parent.glob(".out.unfinished/shards/*/segment-0/lengths.npy"))
        ):
            assert building.poll() is None, "the build ended before it began"
            time.sleep(_POLL_S)
        send(building.pid, signal.SIGINT)
        out, err = building.communicate(timeout=5)

    assert building.returncode == 1
    assert (out, err.strip()) == ("", "rangefinder: interrupted")
    assert tree(parent) == []
    assert survivors(started, within_s=5) == []
