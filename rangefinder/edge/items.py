"""Items between our values and their public messages."""

from collections.abc import Mapping

import numpy as np

from rangefinder.answers import AttributeValue
from rangefinder.keys import IdKind, Keys, integers_of_keys
from rangefinder.v1.item_pb2 import Item


def item_message(
    kind: IdKind,
    key: int,
    text: bytes | None,
    attributes: Mapping[str, AttributeValue],
    embedding: "np.ndarray[tuple[int], np.dtype[np.float32]] | None",
) -> Item:
    """One item as the public API shows it."""
    item = Item()
    if text is not None:
        item.text_id = text.decode()
    else:
        item.integer_id = integer_of_key(key, kind)
    if attributes:
        item.attributes.update(attributes)
    if embedding is not None:
        item.embedding.values.extend(embedding.tolist())
    return item


def integer_of_key(key: int, kind: IdKind) -> int:
    """The id of one key of an integer cluster."""
    keys: Keys = np.array([key], np.uint64)
    return int(integers_of_keys(keys, kind)[0])
