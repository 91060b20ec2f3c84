"""The way from a file of interactions to a release: read, train, build; `train` puts it together."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rangefinder.cli.output import ProgressBars, progress_bars
from rangefinder.cli.train_report import Source, TrainReport
from rangefinder.metric import Metric
from rangefinder.release import IndexParameters, ReleaseExtras, ReleaseManifest
from shard_server.build.keyring import kind_of, make_keyring
from shard_server.build.parquet_source import ParquetSource
from shard_server.build.release_builder import PROBE_COUNT_MAX, BuildOrder, build_release
from shard_server.build.release_builder import Progress as BuildProgress
from shard_server.scoring import Rows
from training.items_file import write_items
from training.key_order import in_key_order
from training.read.interactions_file import read_interactions, size_of
from training.read.layout import ReadOptions
from training.read.titles import read_titles
from training.trainer import Progress, Trained, TrainOrder, train


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """What the options say."""

    path: Path
    options: ReadOptions
    titles: Path | None
    titles_id_offset: int
    out: Path
    name: str
    shard_count: int
    recall_target: float
    seed: int
    threads: int

    def run(self) -> TrainReport:
        """Do it all. Raises InputRefused, early where it can be seen early."""
        with progress_bars() as bars:
            source = self._read(bars)
            order = TrainOrder(
                interactions=source.interactions,
                id_kind=source.kind,
                seed=self.seed,
                threads=self.threads,
            )
            trained = train(order, Progress(bars.begin, bars.advance))
            manifest = self._build(source, trained, BuildProgress(bars.begin, bars.advance))
            return TrainReport(
                source=source, trained=trained, manifest=manifest, seconds=bars.seconds()
            )

    def _read(self, bars: ProgressBars) -> Source:
        """Everything that can be refused or doubted is, before minutes of training."""
        bars.begin("reading interactions", size_of(self.path))
        taken_for: list[str] = []
        read = read_interactions(self.path, self.options, taken_for.append, bars.reach)
        kind = kind_of(read.interactions.item_ids, self.options.id_kind, str(self.path))
        interactions = in_key_order(read.interactions, kind)
        ids = interactions.item_ids
        make_keyring(ids, kind, self.shard_count, str(self.path))
        titles = None
        if self.titles is not None:
            found = read_titles(self.titles, ids, self.titles_id_offset)
            titles = found.titles
            for warning in found.warnings:
                bars.warn(warning)
        return Source(
            interactions=interactions,
            kind=kind,
            titles=titles,
            taken_for=taken_for[0],
            repeated_count=read.repeated_count,
        )

    def _build(self, source: Source, trained: Trained, progress: BuildProgress) -> ReleaseManifest:
        """The release, from a temporary file of items."""
        with TemporaryDirectory(prefix="rangefinder-train-") as folder:
            path = Path(folder) / "items.parquet"
            ids = source.interactions.item_ids
            write_items(path, ids, trained.factors.items, source.titles)
            order = BuildOrder(
                source=ParquetSource.open(path),
                out=self.out,
                name=self.name,
                metric=Metric.INNER_PRODUCT,
                id_kind=source.kind,
                shard_count=self.shard_count,
                index=IndexParameters(),
                recall_target=self.recall_target,
                jobs=min(self.threads, self.shard_count),
                probes=_probes(trained),
                write_extras=lambda folder: _write_extras(folder, trained),
            )
            return build_release(order, progress)


def _probes(trained: Trained) -> Rows:
    """Users' embeddings, evenly chosen: what the index will be asked."""
    users = trained.factors.users
    count = min(PROBE_COUNT_MAX, len(users))
    return users[np.arange(count) * len(users) // count]


def _write_extras(folder: Path, trained: Trained) -> ReleaseExtras:
    ranker = trained.ranker.ranker
    return ReleaseExtras(
        items=trained.items.save(folder),
        users=trained.users.save(folder),
        ranker=None if ranker is None else ranker.save(folder),
    )
