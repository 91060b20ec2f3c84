"""What a release knows of its users: columns, mapped, one copy per machine.

users/keys.npy              uint64 (users,), ascending: XXH3-64 of the user's id
users/texts.npy, text_ends.npy    the ids themselves; an integer id is written in decimal
users/embeddings.npy        float32 (users, dimension)
users/history.npy           int32: places in the item tables, of each user the newest first
users/history_ends.npy      int64 (users,): where each user's history ends in that column
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rangefinder import release
from rangefinder.item_tables import Places
from rangefinder.keys import Keys, keys_of_texts
from rangefinder.release import ReleaseManifest, UsersDescription
from rangefinder.storage import map_array, save_array
from rangefinder.texts import TextColumn, map_texts, save_texts

FOLDER = "users"
USER_ID_BYTES_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTables:
    """Columns of one length, but for `history`. Every array may be a mapped file."""

    keys: Keys
    texts: TextColumn
    embeddings: npt.NDArray[np.float32]
    history: npt.NDArray[np.int32]
    history_ends: npt.NDArray[np.int64]

    @classmethod
    def open(cls, root: Path, manifest: ReleaseManifest) -> "UserTables | None":
        """Verify and map the tables of a release; None where it has none. Raises ReleaseDamaged."""
        about, folder = manifest.users, root / FOLDER
        if about is None:
            return None
        release.verify(root, manifest, manifest.files_below(FOLDER))
        count = about.user_count
        return cls(
            keys=map_array(folder / "keys.npy", np.uint64, (count,)),
            texts=map_texts(folder, about.text_bytes, count),
            embeddings=map_array(folder / "embeddings.npy", np.float32, (count, manifest.dimension)),
            history=map_array(folder / "history.npy", np.int32, (about.history_length,)),
            history_ends=map_array(folder / "history_ends.npy", np.int64, (count,)),
        )

    def save(self, root: Path) -> UsersDescription:
        """Write the tables into a release that is being built."""
        folder = root / FOLDER
        folder.mkdir()
        for name in ("keys", "embeddings", "history", "history_ends"):
            save_array(folder / f"{name}.npy", getattr(self, name))
        save_texts(folder, self.texts)
        return UsersDescription(
            user_count=len(self.keys),
            text_bytes=len(self.texts.blob),
            history_length=len(self.history),
        )

    def row_of(self, user_id: str) -> int | None:
        """The row of a user; None where the release does not know the id."""
        text = user_id.encode()
        key = keys_of_texts([text])[0]
        row = int(np.searchsorted(self.keys, key))
        # Two ids may share a key: only the one that is kept is known.
        is_known = row < len(self.keys) and self.keys[row] == key and self.texts[row] == text
        return row if is_known else None

    def history_of(self, row: int) -> Places:
        """Places in the item tables of what the user had, newest first."""
        start = int(self.history_ends[row - 1]) if row else 0
        return self.history[start : int(self.history_ends[row])].astype(np.int64)
