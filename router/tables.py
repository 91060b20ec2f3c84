"""What a release knows of users and items, and what its tables propose for somebody.

The tables are mapped files. They are read whole when they are verified, so that a look-up finds its
pages in memory; what touches many of them at random still belongs on a thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rangefinder.candidates import Proposals, distinct, is_among, similar_items
from rangefinder.cluster_map import ClusterMap
from rangefinder.errors import InputRefused
from rangefinder.item_tables import ItemTables, Places
from rangefinder.keys import Keys
from rangefinder.release import read_manifest
from rangefinder.user_tables import UserTables
from router.pipeline import Source
from router.recommend_requests import Wish

NO_PLACES: Places = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownUser:
    """A row of the user tables."""

    embedding: npt.NDArray[np.float32]  # Shape (1, dimension).
    history: Places  # In the item tables, newest first.


@dataclass(frozen=True, slots=True, kw_only=True)
class Taste:
    """What is known of who asks, as sources need it."""

    is_known: bool  # Whether the release knows the user by id.
    embedding: npt.NDArray[np.float32] | None  # Shape (1, dimension).
    seeds: Places  # In the item tables: what the user had last, newest first.
    excluded: Keys  # None twice.
    excluded_places: Places  # Those of them that the item tables know.

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to go by."""
        return self.embedding is None and not len(self.seeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseTables:
    """The tables of one release; either may be absent."""

    items: ItemTables | None = None
    users: UserTables | None = None

    @property
    def has_popular(self) -> bool:
        return self.items is not None and len(self.items.popular) > 0

    def user(self, user_id: str) -> KnownUser | None:
        """What the release knows of a user."""
        row = self.users.row_of(user_id) if self.users is not None and user_id else None
        if self.users is None or row is None:
            return None
        history = self.users.history_of(row) if self.items is not None else NO_PLACES
        return KnownUser(embedding=self.users.embeddings[row : row + 1], history=history)

    def taste(self, wish: Wish, user: KnownUser | None) -> Taste:
        """What a request and the release say of who asks."""
        embedding = wish.user_embedding
        if embedding is None and user is not None:
            embedding = user.embedding
        history = NO_PLACES if user is None else user.history
        seeds = self._places(wish.recent)
        if not len(seeds):  # None given, or none that the tables know.
            seeds = history
        excluded, places = self._excluded(wish, history)
        return Taste(
            is_known=user is not None,
            embedding=embedding,
            seeds=seeds[: wish.pipeline.item_to_item.seed_count],
            excluded=excluded,
            excluded_places=places,
        )

    def _excluded(self, wish: Wish, history: Places) -> tuple[Keys, Places]:
        """What is never returned: keys, and the places of those that the item tables know."""
        excluded = wish.excluded
        if wish.exclude_seen and self.items is not None and len(history):
            if not len(excluded):  # The usual request. Places ascend as their keys do.
                places = distinct(history)
                return self.items.keys[places], places
            excluded = np.concatenate([excluded, self.items.keys[history]])
        excluded = distinct(excluded)
        return excluded, self._known_places(excluded)

    def _places(self, keys: Keys) -> Places:
        """Of the keys that the item tables know, each once, in their order."""
        if not len(keys):
            return NO_PLACES
        places = self._known_places(keys)
        _, first = np.unique(places, return_index=True)
        return places[np.sort(first)]

    def _known_places(self, keys: Keys) -> Places:
        """Of the keys that the item tables know: ascending where the keys are."""
        if self.items is None or not len(keys):
            return NO_PLACES
        places = self.items.places_of(keys)
        return places[places >= 0]

    def similar(self, taste: Taste, source: Source, quota: int) -> Proposals:
        """Items near those that the user had last."""
        assert self.items is not None
        places, scores = similar_items(
            self.items.neighbours,
            self.items.neighbour_scores,
            taste.seeds,
            taste.excluded_places,
            quota,
        )
        return Proposals(source.name, self.items.keys[places], scores, source.weight)

    def popular(self, taste: Taste, source: Source, quota: int) -> Proposals:
        """Items that most users had."""
        assert self.items is not None
        enough = quota + len(taste.excluded_places)
        places, scores = self.items.popular[:enough], self.items.popular_scores[:enough]
        if len(taste.excluded_places):
            kept = ~is_among(places, taste.excluded_places)
            places, scores = places[kept], scores[kept]
        return Proposals(source.name, self.items.keys[places[:quota]], scores[:quota], source.weight)

    def texts_of(self, keys: Keys, known: Mapping[int, bytes]) -> dict[int, bytes]:
        """The ids of items of a text cluster by key; `known` are those that nodes have told."""
        wanted = keys.tolist()
        if self.items is None or self.items.texts is None:
            return {key: known[key] for key in wanted}
        missing = np.array([key for key in wanted if key not in known], np.uint64)
        texts = self.items.texts.take(self.items.places_of(missing))
        told = {key: known[key] for key in wanted if key in known}
        return told | dict(zip(missing.tolist(), texts, strict=True))


def open_tables(root: Path | None, cluster_map: ClusterMap) -> dict[str, ReleaseTables]:
    """The tables of a release by its name, verified. Raises InputRefused, ReleaseDamaged."""
    if root is None:
        return {}
    manifest = read_manifest(root)
    served = {release.name: release for release in cluster_map.releases}.get(manifest.name)
    if served is None or cluster_map.id_kind is not manifest.id_kind:
        raise InputRefused(
            f"release: {root} holds {manifest.name!r} with ids of kind {manifest.id_kind}, which is"
            f" not what the cluster map names ({cluster_map.active_release!r}, {cluster_map.id_kind})"
        )
    if served.dimension != manifest.dimension:
        raise InputRefused(
            f"release: embeddings of {root} have {manifest.dimension} values, but the map's have"
            f" {served.dimension}"
        )
    tables = ReleaseTables(items=ItemTables.open(root, manifest), users=UserTables.open(root, manifest))
    return {manifest.name: tables}
