"""A small world of candidate lists, whose truth is known, and a release that holds a ranker of it.

Items have a quality that two sources see, each with errors of its own: an order by both is better than
an order by the index alone.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from rangefinder import release
from rangefinder.candidates import INDEX, ITEM_TO_ITEM, POPULARITY, Proposals, merge_candidates
from rangefinder.item_tables import ItemTables
from rangefinder.keys import IdKind, Keys, keys_of_integers, keys_of_texts
from rangefinder.metric import Metric
from rangefinder.release import (
    FORMAT,
    IndexParameters,
    RankerDescription,
    ReleaseExtras,
    ReleaseManifest,
    ReleaseShard,
    list_files,
    read_manifest,
    write_manifest,
)
from rangefinder.texts import TextColumn
from ranker_service.card import Card
from shard_server.build.npy_source import NpySource
from shard_server.build.release_builder import BuildOrder, Progress, build_release
from training.ranker import RankerOutcome, train_ranker
from training.ranking_lists import RankingLists

ITEM_COUNT = 300
SOURCES = (INDEX, ITEM_TO_ITEM, POPULARITY)
ITEM_FEATURES = ("popularity", "activity")
_PROPOSED = 60
_RELEVANT = 5


def item_tables(kind: IdKind = IdKind.INTEGER) -> ItemTables:
    """Items whose ids are their numbers; the last ones know no activity."""
    keys, texts = item_keys(np.arange(ITEM_COUNT), kind), None
    order = np.argsort(keys)
    if kind is IdKind.TEXT:
        texts = TextColumn.of(_texts(order))
    popularity = np.arange(ITEM_COUNT, dtype=np.float32) / ITEM_COUNT
    activity = np.where(np.arange(ITEM_COUNT) < ITEM_COUNT - 50, 1 - popularity, np.nan)
    return ItemTables(
        keys=keys[order],
        texts=texts,
        feature_names=ITEM_FEATURES,
        features=np.stack([popularity, activity], axis=1).astype(np.float32)[order],
        neighbours=np.full((ITEM_COUNT, 1), -1, np.int32),
        neighbour_scores=np.zeros((ITEM_COUNT, 1), np.float32),
        popular=np.zeros(0, np.int32),
        popular_scores=np.zeros(0, np.float32),
    )


def item_keys(numbers: "np.ndarray[tuple[int], np.dtype[np.int64]]", kind: IdKind) -> Keys:
    return keys_of_texts(_texts(numbers)) if kind is IdKind.TEXT else keys_of_integers(numbers, kind)


def _texts(numbers: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> list[bytes]:
    return [f"item-{number}".encode() for number in numbers.tolist()]


def lists_of(user_count: int, *, index_error: float = 1.0, seed: int = 5) -> RankingLists:
    """Lists of users. index_error: of the index's scores; 0: its order is perfect."""
    random, tables = np.random.default_rng(seed), item_tables()
    lists, labels, counts = [], [], []
    for _ in range(user_count):
        quality = random.standard_normal(ITEM_COUNT)
        best = np.sort(tables.keys[np.argsort(-quality)[:_RELEVANT]])
        parts = []
        for source, error in zip(SOURCES, (index_error, 1.0, 8.0), strict=True):
            scores = (5 + quality + error * random.standard_normal(ITEM_COUNT)).astype(np.float32)
            order = np.argsort(-scores)[:_PROPOSED]
            parts.append(Proposals(source, tables.keys[order], scores[order]))
        candidates = merge_candidates(parts, 2 * _PROPOSED)
        lists.append(candidates)
        labels.append(np.isin(candidates.keys, best))
        counts.append(_RELEVANT)
    return RankingLists(
        lists=lists, labels=labels, relevant_counts=np.array(counts, np.int64), tables=tables
    )


@cache
def trained() -> RankerOutcome:
    """A ranker of this world: trained once for all tests of a process."""
    return train_ranker(lists_of(600), seed=1, threads=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedRelease:
    """A release without shards to speak of: a ranking service reads none."""

    path: Path
    card: Card
    kind: IdKind

    @property
    def manifest(self) -> ReleaseManifest:
        return read_manifest(self.path)

    def seal(self, ranker: RankerDescription | None) -> None:
        """Write the manifest over what the folder holds now."""
        (self.path / release.MANIFEST).unlink(missing_ok=True)
        tables = item_tables(self.kind)
        manifest = ReleaseManifest(
            format=FORMAT,
            name=self.path.name,
            dimension=2,
            metric=Metric.INNER_PRODUCT,
            id_kind=self.kind,
            item_count=ITEM_COUNT,
            created_at_s=0,
            recall_target=0.98,
            index=IndexParameters(),
            shards=(ReleaseShard(name="s-0", key_start=0, key_end=2**64, item_count=0, segments=()),),
            items=release.ItemsDescription(
                item_count=ITEM_COUNT,
                text_bytes=None if tables.texts is None else len(tables.texts.blob),
                feature_names=tables.feature_names,
                neighbour_count=1,
                popular_count=0,
            ),
            ranker=ranker,
            files=list_files(self.path),
        )
        write_manifest(self.path, manifest)


def build_ranked_release(folder: Path) -> Path:
    """A release that a cluster serves: this world's items, at random places, and its ranker."""
    ranker = trained().ranker
    assert ranker is not None, trained().summary
    rows = np.random.default_rng(3).standard_normal((ITEM_COUNT, 4)).astype(np.float32)
    np.save(folder / "rows.npy", rows)

    def write_extras(root: Path) -> ReleaseExtras:
        return ReleaseExtras(items=item_tables().save(root), ranker=ranker.save(root))

    order = BuildOrder(
        source=NpySource.open(folder / "rows.npy", None, None),
        out=folder / "release",
        name="release",
        metric=Metric.INNER_PRODUCT,
        id_kind=None,
        shard_count=2,
        index=IndexParameters(),
        recall_target=0.98,
        jobs=1,
        write_extras=write_extras,
    )
    build_release(order, Progress(lambda stage, count: None, lambda count: None))
    return order.out


def write_ranked_release(path: Path, kind: IdKind = IdKind.INTEGER) -> RankedRelease:
    """A release with the ranker of this world."""
    ranker = trained().ranker
    assert ranker is not None, trained().summary
    path.mkdir()
    item_tables(kind).save(path)
    written = RankedRelease(path=path, card=ranker.card, kind=kind)
    written.seal(ranker.save(path))
    return written
