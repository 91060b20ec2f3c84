"""Users of a release for `make demo`: a few of the usual kind, and what they had."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rangefinder import Client
from rangefinder.item_tables import ItemTables
from rangefinder.release import read_manifest
from rangefinder.user_tables import UserTables
from scripts.stage import DemoFailed
from training.evaluation import ids_of_places

USER_COUNT = 5
_SHOWN_ITEMS = 10


@dataclass(frozen=True, slots=True)
class ShownUser:
    """A user, how many items it had, and ids of some: the newest first, where times are known."""

    id: str
    had_count: int
    had: list[int] | list[str]


@dataclass(frozen=True, slots=True)
class Trained:
    """What the demo asks for, out of a release that `rangefinder train` made."""

    users: Sequence[ShownUser]
    embeddings: npt.NDArray[np.float32]  # Of up to 500 users.
    has_ranker: bool

    @classmethod
    def read(cls, release: Path) -> "Trained":
        """Raises DemoFailed where the release has no users."""
        manifest = read_manifest(release)
        users, items = UserTables.open(release, manifest), ItemTables.open(release, manifest)
        if users is None or items is None:
            raise DemoFailed(f"{release} has no users")
        shown = []
        for row in _usual(users):
            history = users.history_of(row)
            ids = ids_of_places(items, manifest.id_kind, history[:_SHOWN_ITEMS])
            had = ids.tolist() if isinstance(ids, np.ndarray) else ids
            shown.append(ShownUser(users.texts[row].decode(), len(history), had))
        return cls(shown, np.array(users.embeddings[:500]), manifest.ranker is not None)


def _usual(users: UserTables) -> list[int]:
    """Rows with histories near the lower quartile: enough to know a taste, few enough to see it."""
    lengths = np.diff(users.history_ends, prepend=0)
    far = np.abs(lengths - np.quantile(lengths, 0.25))
    return [int(row) for row in np.argsort(far, kind="stable")[:USER_COUNT]]


async def in_words(client: Client, user: ShownUser) -> str:
    """What a user had, by title where there is one; titles may hold commas."""
    read = await client.get_items(user.had)
    titles = {item.id: str(item.attributes.get("title", item.id)) for item in read.items}
    had = "; ".join(titles.get(each, str(each)) for each in user.had)
    return f"User {user.id} had {user.had_count} items, such as: {had}"
