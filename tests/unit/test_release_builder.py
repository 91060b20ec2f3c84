"""What a build writes: all of the catalogue, the same bytes each time, or nothing at all."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rangefinder.errors import InputRefused, ReleaseDamaged
from rangefinder.metric import Metric
from rangefinder.release import PROBES, read_manifest
from shard_server.build.npy_source import NpySource
from shard_server.segment import Search
from shard_server.shard import Shard, load_probes, probe_recall, search_shards
from tests.kit.oracle import splitmix64
from tests.unit.built import (
    DIMENSION,
    ID_KINDS,
    ITEM_COUNT,
    RECALL_TARGET,
    SHARD_COUNT,
    Built,
    build,
)


def test_the_manifest_says_what_was_built(small: Built) -> None:
    """The manifest on disk is the one returned; its shards divide the items and all keys."""
    manifest = read_manifest(small.root)
    assert small.manifest == manifest
    assert (ITEM_COUNT, DIMENSION) == (manifest.item_count, manifest.dimension)
    assert (small.metric, ID_KINDS[small.metric]) == (manifest.metric, manifest.id_kind)
    assert [ITEM_COUNT // SHARD_COUNT] * SHARD_COUNT == [each.item_count for each in manifest.shards]
    ends = [each.key_end for each in manifest.shards]
    assert [0, *ends[:-1], 2**64] == [each.key_start for each in manifest.shards] + ends[-1:]
    assert {"release.yaml", "probes", "shards"} == {path.name for path in small.root.iterdir()}


def test_every_item_is_in_the_shard_of_its_key(small: Built) -> None:
    """The shards hold each key of the catalogue once, in key order, in the range that owns it."""
    held = [key for shard in small.shards for each in shard.segments for key in each.keys.tolist()]
    assert sorted(small.keys) == held
    for shard in small.shards:
        keys = shard.segments[0].keys
        assert shard.about.key_start <= int(keys[0])
        assert int(keys[-1]) < shard.about.key_end


def test_a_second_build_gives_the_same_files(small: Built, tmp_path: Path) -> None:
    """Built again from the same source, every file has the same size and checksum."""
    again = build(small.source, small.metric, tmp_path / "again")
    assert small.manifest.files == again.files
    assert small.manifest == replace(again, created_at_s=small.manifest.created_at_s)


def test_probes_are_items_held_out(small: Built) -> None:
    """A tenth of the items, each once, as they were given, are the probes of the release."""
    probes = load_probes(small.root, small.manifest)
    assert (ITEM_COUNT // 10, DIMENSION) == probes.shape
    of_probes = Counter(row.tobytes() for row in probes)
    assert of_probes <= Counter(row.tobytes() for row in small.rows)


def test_shards_hold_their_recall_on_the_probes(small: Built) -> None:
    """Searched at the default width, each shard finds as much of the truth as was promised."""
    probes = load_probes(small.root, small.manifest)
    for shard in small.shards:
        assert shard.segments[0].index is not None
        assert probe_recall(shard, probes) >= RECALL_TARGET


def test_without_probes_the_recall_is_1(small: Built) -> None:
    """A shard that nothing can be asked of is as good as it can be."""
    assert 1.0 == probe_recall(small.shards[0], np.empty((0, DIMENSION), np.float32))


@pytest.mark.parametrize("item_count", [2, 11])
def test_a_handful_of_items_is_a_release(tmp_path: Path, item_count: int) -> None:
    """Few items are kept without an index, with a probe for every ten, and found all the same."""
    rows = np.eye(item_count, dtype=np.float32)
    np.save(tmp_path / "x.npy", rows)
    source = NpySource.open(tmp_path / "x.npy", None, None)
    manifest = build(source, Metric.INNER_PRODUCT, tmp_path / "out")
    assert [item_count // 2, item_count - item_count // 2] == [
        each.item_count for each in manifest.shards
    ]
    shards = [Shard.open(tmp_path / "out", manifest, about) for about in manifest.shards]
    probes = load_probes(tmp_path / "out", manifest)
    assert (item_count // 10, item_count) == probes.shape
    assert [1.0, 1.0] == [probe_recall(shard, probes) for shard in shards]
    found = search_shards(shards, Search(queries=rows, wanted=np.ones(item_count, np.int64)))
    assert [splitmix64(row) for row in range(item_count)] == found.keys[:, 0].tolist()


def test_a_bad_row_leaves_nothing(tmp_path: Path) -> None:
    """A row that is refused in the middle of a build leaves no release and no temporary files."""
    rows = np.ones((50, 3), np.float32)
    rows[31, 1] = np.nan
    np.save(tmp_path / "x.npy", rows)
    source = NpySource.open(tmp_path / "x.npy", None, None)
    with pytest.raises(InputRefused, match=r"x\.npy: row 31: the embedding holds NaN"):
        build(source, Metric.INNER_PRODUCT, tmp_path / "out")
    assert {"x.npy"} == {path.name for path in tmp_path.iterdir()}


def test_a_damaged_file_is_not_opened(small: Built, tmp_path: Path) -> None:
    """A shard one of whose files has changed is refused; the probes are checked, too."""
    for name in ("shards/s-0/segment-0/rows.npy", PROBES):
        path = small.root / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        try:
            with pytest.raises(ReleaseDamaged, match=f"{name}: checksum mismatch"):
                Shard.open(small.root, small.manifest, small.manifest.shards[0])
                load_probes(small.root, small.manifest)
        finally:
            path.write_bytes(content)
