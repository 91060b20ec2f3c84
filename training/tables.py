"""The tables of a release, of interactions in the order of keys (see key_order.py). Pure."""

import numpy as np

from rangefinder.item_tables import ItemTables
from rangefinder.keys import IdKind, keys_of_texts
from rangefinder.texts import TextColumn
from rangefinder.user_tables import UserTables
from training.factors import Embeddings
from training.histories import Histories
from training.interactions import Interactions
from training.item_features import item_features
from training.key_order import item_keys
from training.neighbours import Neighbours

POPULAR_COUNT_MAX = 10_000  # A user who had them all gets no popular items: nobody has.


def item_tables(interactions: Interactions, kind: IdKind, neighbours: Neighbours) -> ItemTables:
    """What these interactions say of each item."""
    ids = interactions.item_ids
    counts = np.bincount(interactions.items, minlength=interactions.item_count)
    popular = np.argsort(-counts, kind="stable")[: min(POPULAR_COUNT_MAX, np.count_nonzero(counts))]
    feature_names, features = item_features(interactions)
    return ItemTables(
        keys=item_keys(ids, kind),
        texts=ids if isinstance(ids, TextColumn) else None,
        feature_names=feature_names,
        features=features,
        neighbours=neighbours.places,
        neighbour_scores=neighbours.scores,
        popular=popular.astype(np.int32),
        popular_scores=counts[popular].astype(np.float32),
    )


def user_tables(interactions: Interactions, embeddings: Embeddings) -> UserTables:
    """What is known of each user."""
    histories = Histories.of_interactions(interactions)
    return UserTables(
        keys=keys_of_texts(interactions.user_ids),
        texts=interactions.user_ids,
        embeddings=embeddings,
        history=histories.items,
        history_ends=histories.ends,
    )
