"""Segments of a shard: however many there are, the answers are the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.worlds import generate
from rangefinder.merge import Hits, Scores
from rangefinder.metric import Metric
from rangefinder.release import IndexParameters, ReleaseShard
from rangefinder.width import Calibration
from shard_server.build import segment_builder, spool
from shard_server.build.segment_builder import INDEXED_ROWS_MIN, ShardOrder, build_shard
from shard_server.calibration import SearchAtWidth, calibrate
from shard_server.scoring import unit_rows
from shard_server.segment import Search, Segment
from shard_server.shard import Shard
from tests.kit import oracle
from tests.unit.built import Rows

DIMENSION = 8
ROW_COUNT = 2_600


def order_of(folder: Path, metric: Metric, rows: Rows) -> ShardOrder:
    """A spool as pass one leaves it: rows in no order of their keys, and 100 of them as probes."""
    kept = unit_rows(rows) if metric is Metric.COSINE else rows
    random = np.random.default_rng(3)
    keys = random.permutation(np.arange(1, len(rows) + 1, dtype=np.uint64) * np.uint64(2**50 + 1))
    spooled = folder / "spool"
    spooled.mkdir()
    kept.tofile(spooled / spool.ROWS)
    np.save(spooled / spool.KEYS, keys)
    probes = np.sort(random.choice(len(rows), 100, replace=False))
    np.save(folder / "probes.npy", rows[probes])
    np.save(folder / "probe_keys.npy", np.sort(keys[probes]))
    return ShardOrder(
        name="s-0",
        spool=spooled,
        out=folder / "one",
        dimension=DIMENSION,
        metric=metric,
        index=IndexParameters(links=8, build_width=60),
        recall_target=0.98,
        probes=folder / "probes.npy",
        probe_keys=folder / "probe_keys.npy",
    )


def shard_of(order: ShardOrder) -> Shard:
    """Build a shard and open it."""
    done: list[int] = []
    names = build_shard(order, done.append)
    segments = tuple(Segment.open(order.out / name) for name in names)
    shard = Shard(
        ReleaseShard(name="s-0", key_start=0, key_end=2**64, item_count=sum(done), segments=names),
        segments,
    )
    assert shard.item_count == sum(done)
    return shard


def pairs(hits: Hits) -> list[tuple[list[int], list[float]]]:
    return [
        (keys[:count].tolist(), scores[:count].tolist())
        for keys, scores, count in zip(hits.keys, hits.scores, hits.counts.tolist(), strict=True)
    ]


def items_and_queries() -> tuple[Rows, Rows]:
    world = generate(ROW_COUNT, DIMENSION, query_count=30, seed=8)
    rows = world.rows
    rows[500:560] = rows[3]
    rows[560:563] = 0
    return rows, world.queries


@pytest.mark.parametrize("metric", list(Metric))
def test_the_number_of_segments_changes_no_exact_answer(tmp_path: Path, metric: Metric) -> None:
    """One segment or three, with exclusions and mixed counts: brute force's keys and bits."""
    rows, queries = items_and_queries()
    order = order_of(tmp_path, metric, rows)
    one = shard_of(order)
    three = shard_of(replace(order, out=tmp_path / "three", segment_rows_max=1_100))
    assert (1, 3) == (len(one.segments), len(three.segments))
    keys = np.load(order.spool / spool.KEYS).tolist()
    random = np.random.default_rng(9)
    wanted = random.choice([1, 10, 100, 3_000], len(queries)).astype(np.int64)
    left_out = [random.choice(ROW_COUNT, 40, replace=False) for _ in queries]
    excluded = [np.array([keys[place] for place in places], np.uint64) for places in left_out]
    search = Search(queries=queries, wanted=wanted, exact=True, excluded=excluded)
    expected = []
    for query, count, places in zip(queries, wanted.tolist(), left_out, strict=True):
        scores = oracle.scores(metric.value, rows, query)
        best = oracle.best(scores, keys, count, frozenset(places.tolist()))
        expected.append(([keys[place] for place, _ in best], [score for _, score in best]))
    assert expected == pairs(one.search(search))
    assert expected == pairs(three.search(search))


def test_an_index_is_calibrated_on_queries_that_it_has_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is calibrated, no probe finds itself; in the finished index every probe does."""
    rows = generate(1_200, DIMENSION, seed=4).rows  # No two are equal.
    order = order_of(tmp_path, Metric.L2, rows)
    best: list[float] = []

    def calibrate_noting(
        truth: Scores, search: SearchAtWidth, row_count: int, recall_target: float
    ) -> Calibration:
        best.extend([float(truth.max()), float(search(100, 100, 100).max())])
        return calibrate(truth, search, row_count, recall_target)

    monkeypatch.setattr(segment_builder, "calibrate", calibrate_noting)
    (segment,) = shard_of(order).segments
    assert 2 == len(best)
    assert max(best) < 0
    probes = np.load(order.probes)
    found = segment.search(Search(queries=probes, wanted=np.full(len(probes), 1), width=100))
    assert [0.0] * len(probes) == found.scores[:, 0].tolist()


def test_segments_are_cut_in_key_order(tmp_path: Path) -> None:
    """Segments differ by one row at most, and each begins after the last key of the one before."""
    order = order_of(tmp_path, Metric.L2, items_and_queries()[0])
    shard = shard_of(replace(order, segment_rows_max=700))
    assert ("segment-0", "segment-1", "segment-2", "segment-3") == shard.about.segments
    assert [650] * 4 == [len(each.keys) for each in shard.segments]
    held = [key for each in shard.segments for key in each.keys.tolist()]
    assert sorted(np.load(order.spool / spool.KEYS).tolist()) == held


def test_items_of_several_segments_are_one_walk(tmp_path: Path) -> None:
    """Pages over several segments have every item once, in key order."""
    order = order_of(tmp_path, Metric.L2, items_and_queries()[0])
    shard = shard_of(replace(order, segment_rows_max=700))
    walked: list[int] = []
    while page := shard.page(walked[-1] + 1 if walked else 0, 2**64, 333):
        walked += [item.key for item in page]
    assert sorted(np.load(order.spool / spool.KEYS).tolist()) == walked


@pytest.mark.parametrize(
    ("row_count", "has_index"), [(INDEXED_ROWS_MIN - 1, False), (INDEXED_ROWS_MIN, True)]
)
def test_small_segments_have_no_index(tmp_path: Path, row_count: int, has_index: bool) -> None:
    """Under 1,000 rows there is neither index nor calibration; from there on there are both."""
    rows = items_and_queries()[0][:row_count]
    (segment,) = shard_of(order_of(tmp_path, Metric.L2, rows)).segments
    assert has_index == (segment.index is not None)
    assert has_index == bool(segment.description.calibration.curves)
    assert has_index == (segment.folder / "index.hnsw").exists()


@pytest.mark.parametrize("metric", list(Metric))
def test_rows_that_no_index_gets_past_are_found_all_the_same(tmp_path: Path, metric: Metric) -> None:
    """A few giants among the rows, or equal rows only, hide others from an index, not from answers.

    To an inner product giants are everybody's nearest rows: what they do not link to is out of reach.
    """
    worlds: list[npt.NDArray[np.float32]] = []
    giants = items_and_queries()[0][:1_500]
    giants[240:243] *= np.float32(1e6)
    worlds += [giants, np.ones((1_200, DIMENSION), np.float32)]
    for number, rows in enumerate(worlds):
        (tmp_path / str(number)).mkdir()
        order = order_of(tmp_path / str(number), metric, rows)
        shard = shard_of(order)
        keys = np.load(order.spool / spool.KEYS).tolist()
        queries = rows[[3, 241, 700]]
        for width in (0, 400):
            wanted = np.array([10, 10, 400])
            hits = shard.search(Search(queries=queries, wanted=wanted, width=width))
            assert [10, 10, 400] == hits.counts.tolist()
            for query, (found, scores) in enumerate(pairs(hits)):
                truth = oracle.scores(metric.value, rows, queries[query])
                assert [truth[keys.index(key)] for key in found] == scores
