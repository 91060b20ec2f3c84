"""Releases that are not what was built: refused, with the file named, and never served."""

import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.worlds import generate
from rangefinder import Client
from rangefinder.errors import InputRefused, RangefinderError, ReleaseDamaged
from rangefinder.hashing import FileChecksum
from rangefinder.release import MANIFEST, read_manifest
from tests.kit.commands import rangefinder_all, require_refused
from tests.kit.damage import copy_release, flip_bit
from tests.kit.loaded import load
from tests.kit.processes import free_port, rangefinder, running_cluster
from tests.kit.remains import descendants, processes_of, survivors
from tests.kit.waiting import until, until_async

FLIP_COUNT = 50
_POLL_S = 0.002
SEED = 20_242


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with every kind of file: text ids and attributes, two shards with an index each."""
    folder = tmp_path_factory.mktemp("damage")
    world = generate(2_400, 16, query_count=1, seed=3)
    columns = {
        "id": [f"item {row}" for row in range(2_400)],
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(world.rows.ravel()), 16),
        "title": world.titles(),
    }
    pq.write_table(pa.table(columns), folder / "items.parquet")
    built = rangefinder(
        *("build", "--items", folder / "items.parquet", "--metric", "cosine"),
        *("--shards", 2, "--out", folder / "release"),
    )
    assert built.returncode == 0, built.stderr
    return folder / "release"


def files_of(release: Path) -> list[Path]:
    return sorted(path.relative_to(release) for path in release.rglob("*") if path.is_file())


def require_unloadable(root: Path, damaged: Path) -> None:
    """Loading is refused with a line that names the damaged file."""
    with pytest.raises(RangefinderError) as refused:
        load(root)
    assert isinstance(refused.value, ReleaseDamaged | InputRefused)
    assert str(root / damaged) in refused.value.message
    assert "\n" not in refused.value.message


def test_a_release_has_every_kind_of_file(release: Path) -> None:
    """The release below is whole and loads, so that what follows is refused for its damage alone."""
    load(release)
    assert {path.name for path in files_of(release)} == {
        *("release.yaml", "queries.npy", "segment.json", "keys.npy", "rows.npy", "lengths.npy"),
        *("index.hnsw", "texts.npy", "text_ends.npy", "attributes.arrow"),
    }


def test_every_flipped_bit_is_refused(release: Path, tmp_path: Path) -> None:
    """Of 50 random bits over all files of a release, each alone keeps a node from loading it."""
    root = copy_release(release, tmp_path)
    chosen = random.Random(SEED)
    files = files_of(root)
    for number in range(FLIP_COUNT):
        damaged = files[number % len(files)]
        bit = chosen.randrange(8 * (root / damaged).stat().st_size)
        flip_bit(root / damaged, bit)
        require_unloadable(root, damaged)
        flip_bit(root / damaged, bit)
    load(root)


def test_every_bit_at_the_ends_of_a_manifest_counts(release: Path, tmp_path: Path) -> None:
    """Each bit of the first and of the last hundred bytes of release.yaml, the line break too."""
    root = copy_release(release, tmp_path)
    manifest = root / MANIFEST
    bit_count = 8 * manifest.stat().st_size
    for bit in (*range(800), *range(bit_count - 800, bit_count)):
        flip_bit(manifest, bit)
        with pytest.raises((ReleaseDamaged, InputRefused), match=re.escape(str(manifest))):
            read_manifest(root)
        flip_bit(manifest, bit)
    read_manifest(root)


def test_a_file_of_another_length_is_refused(release: Path, tmp_path: Path) -> None:
    """Every file of a release, emptied, cut, made longer or removed, keeps a node from loading it."""
    root = copy_release(release, tmp_path)
    chosen = random.Random(SEED)
    for damaged in files_of(root):
        content = (root / damaged).read_bytes()
        cut = chosen.randrange(1, len(content))
        for instead in (b"", content[:cut], content[:-1], content + b"\0", content + b"\n"):
            (root / damaged).write_bytes(instead)
            require_unloadable(root, damaged)
        (root / damaged).unlink()
        require_unloadable(root, damaged)
        (root / damaged).write_bytes(content)
    load(root)


def flip_in_index(root: Path) -> Path:
    return flipped(root / "shards/s-1/segment-0/index.hnsw")


def flip_in_rows(root: Path) -> Path:
    return flipped(root / "shards/s-0/segment-0/rows.npy")


def flip_in_probes(root: Path) -> Path:
    return flipped(root / "probes/queries.npy")


def flip_in_manifest(root: Path) -> Path:
    return flipped(root / MANIFEST)


def flipped(path: Path) -> Path:
    flip_bit(path, 8 * path.stat().st_size // 2)
    return path


def cut_keys(root: Path) -> Path:
    path = root / "shards/s-1/segment-0/keys.npy"
    path.write_bytes(path.read_bytes()[:-8])
    return path


def lose_attributes(root: Path) -> Path:
    path = root / "shards/s-0/segment-0/attributes.arrow"
    path.unlink()
    return path


def lose_manifest(root: Path) -> Path:
    (root / MANIFEST).unlink()
    return root / MANIFEST


def make_newer(root: Path) -> Path:
    """A whole release of the next format."""
    path = root / MANIFEST
    body = path.read_text().replace("format: 2\n", "format: 3\n").rpartition("checksum: ")[0]
    digest = FileChecksum()
    digest.update(body.encode())
    path.write_text(f"{body}checksum: {digest.hexdigest()}\n")
    return path


DAMAGES: tuple[Callable[[Path], Path], ...] = (
    *(flip_in_index, flip_in_rows, flip_in_probes, flip_in_manifest),
    *(cut_keys, lose_attributes, lose_manifest, make_newer),
)


async def test_up_refuses_a_damaged_release(release: Path, tmp_path: Path) -> None:
    """`up` on a damaged or newer release ends with one line that names the file, prints no READY, and
    leaves no process behind."""
    damaged: dict[str, Path] = {}
    commands: dict[str, tuple[object, ...]] = {}
    for damage in DAMAGES:
        name = damage.__name__
        root = copy_release(release, tmp_path / name)
        damaged[name] = damage(root)
        commands[name] = (
            *("up", "--release", root, "--data-dir", tmp_path / name / "data"),
            *("--port", free_port()),
        )

    done = await rangefinder_all(commands)

    for name, each in done.items():
        require_refused(each, str(damaged[name]))
    assert "format 3 is newer" in done["make_newer"].stderr
    assert [text for text in outputs_below(tmp_path) if "Traceback" in text] == []
    assert pid_files_below(tmp_path) == []
    assert processes_of(tmp_path) == []


def outputs_below(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.glob("*/data/output/*.txt")]


def pid_files_below(folder: Path) -> list[Path]:
    return list(folder.glob("*/data/run/*.pid"))


async def test_a_node_that_finds_damage_leaves_the_others_serving(
    release: Path, tmp_path: Path
) -> None:
    """A file damaged while it is served keeps its node from starting again, and costs its range only;
    once the file is mended, the node is back by itself."""
    root = copy_release(release, tmp_path)
    damaged = root / "shards/s-1/segment-0/index.hnsw"
    query = generate(1, 16, query_count=1, seed=3).queries[0]
    async with (
        running_cluster(root, tmp_path / "data") as cluster,
        Client(cluster.address, deadline_s=5.0) as client,
    ):
        pid = cluster.pid("node-0")
        flip_bit(damaged, 54_321)
        cluster.signal("node-1", signal.SIGKILL)
        await until(
            lambda: f"{damaged}: checksum mismatch" in cluster.output("node-1"),
            within_s=15,
            what="node-1 refuses its file",
        )
        in_part = await client.retrieve(query, 10)
        flip_bit(damaged, 54_321)

        async def is_whole() -> bool:
            return (await client.retrieve(query, 10)).certificate.coverage == 1

        await until_async(is_whole, within_s=30, what="node-1 is back")

        assert in_part.certificate.coverage == 0.5
        assert len(in_part.ids) == 10
        assert cluster.pid("node-0") == pid


# Files that appear one after another while a release is built.
MOMENTS = (
    "probes",
    "work/s-1/rows.f32",
    "shards/s-*/segment-0/rows.npy",
    "shards/s-*/segment-0/index.hnsw",
)


def test_a_killed_build_leaves_no_release(tmp_path: Path) -> None:
    """`build`, killed at any moment, leaves no release and no process; what it left cannot be served,
    and does not keep the next build from making a whole one."""
    np.save(tmp_path / "rows.npy", generate(8_000, 16, query_count=1, seed=4).rows)
    out, unfinished = tmp_path / "release", tmp_path / ".release.unfinished"
    build = ("build", "--embeddings", tmp_path / "rows.npy", "--metric", "l2", "--shards", 2)
    for moment in MOMENTS:
        kill_build_when(unfinished, moment, [*build, "--out", out])
        assert not out.exists()
        with pytest.raises(InputRefused, match="no such file"):
            read_manifest(unfinished)

    built = rangefinder(*build, "--out", out)

    assert built.returncode == 0, built.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release", "rows.npy"]
    load(out)


def kill_build_when(unfinished: Path, moment: str, arguments: list[object]) -> None:
    """Kill a build as soon as it has made a file; what it started must end too."""
    command = [sys.executable, "-m", "rangefinder.cli.main", *(str(each) for each in arguments)]
    began_s = time.time()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as building:
        # What the build before left there is older.
        while not any(changed_s(path) > began_s for path in unfinished.glob(moment)):
            assert building.poll() is None, "the build ended before the moment came"
            time.sleep(_POLL_S)
        started = descendants(building.pid)
        building.kill()
        building.wait()
        assert survivors(started, within_s=10) == []


def changed_s(path: Path) -> float:
    try:
        return path.stat().st_ctime
    except FileNotFoundError:
        return 0.0
