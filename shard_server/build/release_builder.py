"""A release from a source of items: spool, one process per shard, manifest."""

import os
import queue
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.queues import Queue
from pathlib import Path
from threading import Thread

import numpy as np
import numpy.typing as npt

from rangefinder import release
from rangefinder.errors import InputRefused
from rangefinder.keys import IdKind, Keys
from rangefinder.metric import Metric
from rangefinder.release import IndexParameters, ReleaseExtras, ReleaseManifest, ReleaseShard
from rangefinder.storage import new_folder, save_array
from shard_server.build.keyring import Keyring, kind_of, make_keyring
from shard_server.build.segment_builder import ShardOrder, build_shard
from shard_server.build.source import ItemSource
from shard_server.build.spool import spool_items
from shard_server.scoring import Rows

# Enough to tell a recall of 0.98 from one of 0.97; a tenth of a small catalogue.
PROBE_COUNT_MAX = 400
PROBE_SHARE_MAX = 10
PROBE_SEED = 20_240

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """What is to be built, and how.

    `probes` are queries like those to come; without them items are held out. `write_extras` writes what
    the release holds beside its shards into the folder that it is given.
    """

    source: ItemSource
    out: Path
    name: str
    metric: Metric
    id_kind: IdKind | None
    shard_count: int
    index: IndexParameters
    recall_target: float
    jobs: int
    probes: Rows | None = None
    write_extras: Callable[[Path], ReleaseExtras] = lambda folder: ReleaseExtras()


@dataclass(frozen=True, slots=True)
class Progress:
    """Told of a stage's name and rows, then of the rows done."""

    begin: Callable[[str, int], None]
    advance: Callable[[int], None]


def build_release(order: BuildOrder, progress: Progress) -> ReleaseManifest:
    """Build a release at order.out, whole or not at all. Raises InputRefused."""
    ids = order.source.ids()
    kind = kind_of(ids, order.id_kind, order.source.name)
    keyring = make_keyring(ids, kind, order.shard_count, order.source.name)
    with new_folder(order.out) as folder, _workspace(folder) as work:
        names = [f"s-{number}" for number in range(order.shard_count)]
        progress.begin("reading items", order.source.row_count)
        probe_rows = _probe_rows(order)
        probes = spool_items(
            order.source,
            ids,
            keyring,
            order.metric,
            [work / name for name in names],
            probe_rows,
            progress.advance,
        )
        probes = probes if order.probes is None else order.probes
        _save_probes(folder, work, probes, keyring.keys[probe_rows])
        progress.begin("building indexes", order.source.row_count)
        segments = _build_shards(
            [_shard_order(order, folder, work, name) for name in names], order, progress
        )
        shutil.rmtree(work)
        manifest = _manifest(order, kind, keyring, dict(zip(names, segments, strict=True)), folder)
        release.write_manifest(folder, manifest)
    return manifest


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    work = folder / "work"
    work.mkdir()
    yield work


def _probe_rows(order: BuildOrder) -> npt.NDArray[np.int64]:
    """Rows that are held out as probes, ascending; none where probes are given."""
    row_count = order.source.row_count
    count = 0 if order.probes is not None else min(PROBE_COUNT_MAX, row_count // PROBE_SHARE_MAX)
    chosen = np.random.default_rng(PROBE_SEED).choice(row_count, count, replace=False)
    return np.sort(chosen).astype(np.int64)


def _save_probes(folder: Path, work: Path, probes: Rows, keys: Keys) -> None:
    path = folder / release.PROBES
    path.parent.mkdir()
    save_array(path, probes)
    save_array(work / "probe_keys.npy", np.sort(keys))


def _shard_order(order: BuildOrder, folder: Path, work: Path, name: str) -> ShardOrder:
    return ShardOrder(
        name=name,
        spool=work / name,
        out=folder / "shards" / name,
        dimension=order.source.dimension,
        metric=order.metric,
        index=order.index,
        recall_target=order.recall_target,
        probes=folder / release.PROBES,
        probe_keys=work / "probe_keys.npy",
    )


_rows_done: "Queue[int]"  # Of a building process.


def _begin_process(rows_done: "Queue[int]") -> None:
    global _rows_done  # noqa: PLW0603 (a process pool hands its start values over in no other way)
    _rows_done = rows_done
    Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    """However the build ended: a process left behind would write into the folder of the next one."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _build_in_process(order: ShardOrder) -> tuple[str, ...]:
    return build_shard(order, _rows_done.put)


def _build_shards(
    orders: list[ShardOrder], order: BuildOrder, progress: Progress
) -> list[tuple[str, ...]]:
    """Build every shard, `jobs` at a time: one thread each, so that a build can be repeated."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # For the processes: they share the cores already.
    context = get_context("spawn")
    rows_done: Queue[int] = context.Queue()
    with ProcessPoolExecutor(order.jobs, context, _begin_process, (rows_done,)) as pool:
        strangers = set(active_children())
        try:
            with _without_interrupts():
                futures = [pool.submit(_build_in_process, shard) for shard in orders]
            _follow(futures, rows_done, progress)
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise InputRefused(
                "a building process was killed, most likely for want of memory:"
                " build with fewer --jobs or more --shards"
            ) from None
        except BaseException:
            # What the others still do is for nothing, and may take many minutes.
            for process in set(active_children()) - strangers:
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started in the block never see Ctrl-C: they end when this one tells them to."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow(
    futures: list[Future[tuple[str, ...]]], rows_done: "Queue[int]", progress: Progress
) -> None:
    """Report progress until all are done, or one has failed."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, _POLL_S, FIRST_EXCEPTION)
        with_error = [future for future in done if future.exception()]
        if with_error:
            with_error[0].result()
        while True:
            try:
                progress.advance(rows_done.get_nowait())
            except queue.Empty:
                break


def _manifest(
    order: BuildOrder,
    kind: IdKind,
    keyring: Keyring,
    segments: dict[str, tuple[str, ...]],
    folder: Path,
) -> ReleaseManifest:
    extras = order.write_extras(folder)
    counts = np.bincount(keyring.shard_places(keyring.keys), minlength=len(segments))
    shards = tuple(
        ReleaseShard(
            name=name,
            key_start=keys.key_start,
            key_end=keys.key_end,
            item_count=int(count),
            segments=segments[name],
        )
        for name, keys, count in zip(segments, keyring.ranges, counts, strict=True)
    )
    return ReleaseManifest(
        format=release.FORMAT,
        name=order.name,
        dimension=order.source.dimension,
        metric=order.metric,
        id_kind=kind,
        item_count=order.source.row_count,
        created_at_s=round(time.time(), 3),
        recall_target=order.recall_target,
        index=order.index,
        shards=shards,
        items=extras.items,
        users=extras.users,
        ranker=extras.ranker,
        files=release.list_files(folder),
    )
