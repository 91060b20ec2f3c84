"""What a release knows of its items beside their embeddings: columns, mapped, one copy per machine.

items/keys.npy                uint64 (items,), ascending: a row is an item's place here
items/texts.npy, text_ends.npy    ids of a text cluster, beside the keys; see texts.py
items/features.npy            float32 (items, features), NaN where unknown
items/neighbours.npy          int32 (items, neighbours): places of similar items, -1 pads
items/neighbour_scores.npy    float32 beside them, descending; 0 pads
items/popular.npy             int32 (popular,): places, the most popular first
items/popular_scores.npy      float32 beside them, descending
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rangefinder import release
from rangefinder.keys import Keys
from rangefinder.release import ItemsDescription, ReleaseManifest
from rangefinder.storage import map_array, save_array
from rangefinder.texts import TextColumn, map_texts, save_texts

FOLDER = "items"

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemTables:
    """Columns of one length, but for `popular`. Every array may be a mapped file."""

    keys: Keys
    texts: TextColumn | None  # None in a cluster of integer ids.
    feature_names: tuple[str, ...]
    features: npt.NDArray[np.float32]
    neighbours: npt.NDArray[np.int32]
    neighbour_scores: npt.NDArray[np.float32]
    popular: npt.NDArray[np.int32]
    popular_scores: npt.NDArray[np.float32]

    @classmethod
    def open(cls, root: Path, manifest: ReleaseManifest) -> "ItemTables | None":
        """Verify and map the tables of a release; None where it has none. Raises ReleaseDamaged."""
        about, folder = manifest.items, root / FOLDER
        if about is None:
            return None
        release.verify(root, manifest, manifest.files_below(FOLDER))
        count, wide = about.item_count, (about.item_count, about.neighbour_count)
        return cls(
            keys=map_array(folder / "keys.npy", np.uint64, (count,)),
            texts=None if about.text_bytes is None else map_texts(folder, about.text_bytes, count),
            feature_names=about.feature_names,
            features=map_array(folder / "features.npy", np.float32, (count, len(about.feature_names))),
            neighbours=map_array(folder / "neighbours.npy", np.int32, wide),
            neighbour_scores=map_array(folder / "neighbour_scores.npy", np.float32, wide),
            popular=map_array(folder / "popular.npy", np.int32, (about.popular_count,)),
            popular_scores=map_array(folder / "popular_scores.npy", np.float32, (about.popular_count,)),
        )

    def save(self, root: Path) -> ItemsDescription:
        """Write the tables into a release that is being built."""
        folder = root / FOLDER
        folder.mkdir()
        for name in ("keys", "features", "neighbours", "neighbour_scores", "popular", "popular_scores"):
            save_array(folder / f"{name}.npy", getattr(self, name))
        if self.texts is not None:
            save_texts(folder, self.texts)
        return ItemsDescription(
            item_count=len(self.keys),
            text_bytes=None if self.texts is None else len(self.texts.blob),
            feature_names=self.feature_names,
            neighbour_count=self.neighbours.shape[1],
            popular_count=len(self.popular),
        )

    def places_of(self, keys: Keys) -> Places:
        """The place of each key, -1 where the tables do not know it; shape of `keys`."""
        if not len(self.keys):
            return np.full(keys.shape, -1, np.int64)
        places = self.keys.searchsorted(keys)
        return np.where(self.keys.take(places, mode="clip") == keys, places, -1)
