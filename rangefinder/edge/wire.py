"""Between the client's values and the public messages."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from google.protobuf.json_format import MessageToDict

from rangefinder.answers import (
    Certificate,
    Degradation,
    Explanation,
    Ids,
    Item,
    MissedRange,
    Recommended,
    SourceScore,
)
from rangefinder.edge.columns import integers_of
from rangefinder.v1 import item_pb2, recommendation_pb2, types_pb2


def ids_message(ids: Ids | Sequence[int]) -> types_pb2.ItemIds:
    """A column of ids: integers or texts, by what they are."""
    if isinstance(ids, np.ndarray):
        return types_pb2.ItemIds(integers=ids.tolist())
    texts = [each for each in ids if isinstance(each, str)]
    integers = [each for each in ids if not isinstance(each, str)]
    return types_pb2.ItemIds(integers=integers, texts=texts)


def ids_of(message: types_pb2.ItemIds) -> Ids:
    """int64 of shape (items,), or texts."""
    if message.texts:
        return list(message.texts)
    return integers_of(message)


def block_message(queries: npt.NDArray[np.float32]) -> types_pb2.VectorBlock:
    """Rows of shape (count, dimension) as one block."""
    rows = np.ascontiguousarray(queries, "<f4")
    return types_pb2.VectorBlock(float32_le=rows.tobytes(), count=len(rows))


def scores_of(values: Sequence[float]) -> npt.NDArray[np.float32]:
    """A column of scores; over a field of a message this is twice as quick as np.array."""
    return np.fromiter(values, np.float32, len(values))


def item_of(message: item_pb2.Item) -> Item:
    """Numbers are doubles, as on the wire."""
    is_text = message.WhichOneof("id") == "text_id"
    has_embedding = message.HasField("embedding")
    return Item(
        id=message.text_id if is_text else message.integer_id,
        attributes=MessageToDict(message.attributes),
        embedding=scores_of(message.embedding.values) if has_embedding else None,
    )


def recommended_of(message: recommendation_pb2.RecommendResponse) -> Recommended:
    """Items as columns; explanations where there are any."""
    items = message.items
    is_text = any(item.WhichOneof("id") == "text_id" for item in items)
    integers = np.array([item.integer_id for item in items], np.int64)
    is_explained = any(item.HasField("explanation") for item in items)
    return Recommended(
        ids=[item.text_id for item in items] if is_text else integers,
        scores=scores_of([item.score for item in items]),
        is_ranked=np.array([item.ranked for item in items], np.bool_),
        sources=[tuple(item.sources) for item in items],
        attributes=[
            MessageToDict(item.attributes) if item.HasField("attributes") else {} for item in items
        ],
        explanations=[_explanation_of(item.explanation) for item in items] if is_explained else [],
        ranker_model=message.ranker_model,
        ranker_model_version=message.ranker_model_version,
        request_id=message.request_id,
        certificate=certificate_of(message.certificate),
    )


def _explanation_of(message: recommendation_pb2.ItemExplanation) -> Explanation:
    return Explanation(
        source_scores={
            each.source: SourceScore(score=each.score, rank=each.rank) for each in message.source_scores
        },
        head_scores=dict(message.head_scores),
        features=dict(message.features),
    )


def certificate_of(message: types_pb2.Certificate) -> Certificate:
    has_recall = message.HasField("estimated_recall")
    return Certificate(
        map_epoch=message.map_epoch,
        release=message.release,
        item_count=message.item_count,
        item_count_searched=message.item_count_searched,
        missed_ranges=tuple(
            MissedRange(
                key_start=missed.key_start,
                key_end=missed.key_end or 2**64,
                item_count=missed.item_count if missed.HasField("item_count") else None,
                reason=missed.reason,
            )
            for missed in message.missed_ranges
        ),
        degradations=tuple(
            Degradation(stage=taken.stage, reason=taken.reason, detail=taken.detail)
            for taken in message.degradations
        ),
        estimated_recall=message.estimated_recall if has_recall else None,
        stage_ms={timing.stage: timing.duration_ms for timing in message.stage_timings},
    )
