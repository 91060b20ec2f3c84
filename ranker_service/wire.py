"""Rank on the wire: requests checked, each fault named with what would be right; answers as columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rangefinder.edge.channel import ANSWER_BYTES_MAX
from rangefinder.edge.columns import integers_of
from rangefinder.errors import InvalidRequest, NotSupported, UnknownModel
from rangefinder.internal.v1.packed_pb2 import PackedFloatColumn, PackedItemIds, PackedRankResponse
from rangefinder.keys import (
    TEXT_BYTES_MAX,
    IdKind,
    IntegerIds,
    Keys,
    keys_of_integers,
    keys_of_texts,
)
from rangefinder.release import ReleaseManifest
from rangefinder.v1.ranking_pb2 import RankRequest
from rangefinder.v1.types_pb2 import ItemIds, StageTiming
from ranker_service.card import Card
from ranker_service.features import Floats
from ranker_service.ranker import Places, Ranked, Ranking

# What is obeyed. Of the user the models of this version read nothing: user_id, user_embedding,
# user_features and context are refused where they are set, since they would change no score.
OBEYED_RANK = frozenset(
    [
        *("request_id", "items", "sources", "source_scores", "item_features", "model"),
        *("model_version", "release", "item_count", "head_weights", "explain"),
    ]
)

CANDIDATES_MAX = 10_000
SOURCES_MAX = 64
REQUEST_ID_BYTES_MAX = 128
HEAD_WEIGHT_MAX = 1_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A checked Rank: what is to be ranked, and what the answer is to hold."""

    request_id: str  # For the log; empty where the caller named none.
    ranking: Ranking
    ids: "IdColumn"
    item_count: int
    explain: bool


@dataclass(frozen=True, slots=True)
class IdColumn:
    """The candidates' ids as they came: one of the two."""

    integers: IntegerIds
    texts: Sequence[bytes]

    def packed(self, order: Places) -> PackedItemIds:
        """Those at some places, in their order."""
        if self.texts:
            return PackedItemIds(texts=[self.texts[place] for place in order.tolist()])
        return PackedItemIds(integers=self.integers[order].astype("<i8", copy=False).tobytes())


def asked_of(request: RankRequest, card: Card, manifest: ReleaseManifest) -> Asked:
    """Raises InvalidRequest, NotSupported, UnknownModel."""
    _require_own(request, card, manifest)
    if len(request.request_id.encode()) > REQUEST_ID_BYTES_MAX:
        raise InvalidRequest("request_id", f"longer than {REQUEST_ID_BYTES_MAX} bytes")
    if not 0 <= request.item_count <= CANDIDATES_MAX:
        raise InvalidRequest("item_count", f"{request.item_count} is not in [0, {CANDIDATES_MAX}]")
    ids, keys = _ids(request.items, manifest.id_kind)
    sources, scores = _source_scores(request, len(keys))
    ranking = Ranking(
        keys=keys,
        sources=sources,
        source_scores=scores,
        item_features=_item_features(request, card, len(keys)),
        head_weights=_head_weights(request, card),
    )
    return Asked(
        request_id=request.request_id,
        ranking=ranking,
        ids=ids,
        item_count=request.item_count or len(keys),
        explain=request.explain,
    )


def _require_own(request: RankRequest, card: Card, manifest: ReleaseManifest) -> None:
    if request.release not in ("", manifest.name):
        raise InvalidRequest(
            "release", f"this ranker serves {manifest.name}, not {request.release[:128]}"
        )
    model, version = request.model or card.model, request.model_version or card.version
    if (model, version) != (card.model, card.version):
        raise UnknownModel(
            f"no model {model[:128]} of version {version[:128]}: this ranker holds"
            f" {card.model} {card.version}"
        )


def _ids(items: ItemIds, kind: IdKind) -> tuple[IdColumn, Keys]:
    """The ids and their keys: all of the release's kind, none twice."""
    column, other = (items.integers, items.texts) if kind.is_integer else (items.texts, items.integers)
    if len(other):
        own = "integers" if kind.is_integer else "texts"
        raise InvalidRequest("items", f"ids of this cluster are {own}: set items.{own}")
    if len(column) > CANDIDATES_MAX:
        raise InvalidRequest("items", f"{len(column)} candidates: at most {CANDIDATES_MAX}")
    ids = IdColumn(integers_of(items), [_text(text) for text in items.texts])
    keys = keys_of_integers(ids.integers, kind) if kind.is_integer else keys_of_texts(ids.texts)
    ascending = np.sort(keys)
    if (ascending[1:] == ascending[:-1]).any():
        raise InvalidRequest("items", "an id stands there twice: send each candidate once")
    return ids, keys


def _text(text: str) -> bytes:
    content = text.encode()
    if not 1 <= len(content) <= TEXT_BYTES_MAX:
        raise InvalidRequest("items", f"an id of {len(content)} bytes: 1 to {TEXT_BYTES_MAX}")
    return content


def _source_scores(request: RankRequest, count: int) -> tuple[tuple[str, ...], Floats]:
    """Sources that the model does not read are the pipeline's own business: they change no score."""
    sources = tuple(request.sources)
    if len(sources) > SOURCES_MAX:
        raise InvalidRequest("sources", f"{len(sources)} sources: at most {SOURCES_MAX}")
    if len(set(sources)) < len(sources):
        raise InvalidRequest("sources", "a source stands there twice")
    size, expected = len(request.source_scores), 4 * count * len(sources)
    if size != expected:
        raise InvalidRequest(
            "source_scores",
            f"{size} bytes, but {count} candidates of {len(sources)} sources are {expected}",
        )
    scores = np.frombuffer(request.source_scores, "<f4").reshape(count, len(sources))
    _require_no_infinity("source_scores", scores)
    return sources, scores


def _item_features(request: RankRequest, card: Card, count: int) -> dict[str, Floats]:
    given = {}
    for name, column in request.item_features.items():
        if name not in card.item_features:
            known = ", ".join(card.item_features) or "none"
            raise NotSupported(
                f"RankRequest.item_features: the model does not read {name[:128]!r}, but: {known}"
            )
        values = np.array(column.values, np.float32)
        if len(values) != count:
            raise InvalidRequest(
                "item_features", f"{name}: {len(values)} values for {count} candidates"
            )
        _require_no_infinity("item_features", values)
        given[name] = values
    return given


def _require_no_infinity(field: str, values: Floats) -> None:
    if np.isinf(values).any():
        raise InvalidRequest(field, "holds an infinity: send finite values, or NaN where there is none")


def _head_weights(request: RankRequest, card: Card) -> Floats:
    """Of each head: as given, 0 where only others are; as the card says where none is."""
    if not request.head_weights:
        return card.weights
    given = dict(request.head_weights)
    for name, weight in given.items():
        if name not in card.head_names:
            heads = ", ".join(card.head_names)
            raise NotSupported(
                f"RankRequest.head_weights: no head {name[:128]!r} in the model, which has: {heads}"
            )
        if not abs(weight) <= HEAD_WEIGHT_MAX:  # Also refuses NaN.
            raise InvalidRequest(
                "head_weights",
                f"{name}: {weight} is not in [-{HEAD_WEIGHT_MAX:g}, {HEAD_WEIGHT_MAX:g}]",
            )
    return np.array([given.get(name, 0.0) for name in card.head_names], np.float32)


def answer_of(asked: Asked, ranked: Ranked, card: Card) -> PackedRankResponse:
    """The answer in columns. Raises InvalidRequest where it exceeds what clients accept."""
    order = ranked.order[: asked.item_count]
    names, absent = ranked.features.names, ranked.features.default_counts.tolist()
    response = PackedRankResponse(
        items=asked.ids.packed(order),
        scores=_bytes(ranked.scores[order]),
        head_scores=_columns(card.head_names, ranked.head_scores[order]),
        model=card.model,
        model_version=card.version,
        scored_count=ranked.scored_count,
        defaulted_features={name: count for name, count in zip(names, absent, strict=True) if count},
        features=_columns(names, ranked.features.values[order]) if asked.explain else {},
        stage_timings=[
            StageTiming(stage="features", duration_ms=ranked.features_s * 1000),
            StageTiming(stage="ranking", duration_ms=ranked.ranking_s * 1000),
        ],
    )
    if response.ByteSize() > ANSWER_BYTES_MAX:
        raise InvalidRequest("item_count", "the answer exceeds 4 MiB: ask for fewer, or do not explain")
    return response


def _columns(names: Sequence[str], rows: Floats) -> dict[str, PackedFloatColumn]:
    columns = zip(names, rows.T, strict=True)
    return {name: PackedFloatColumn(values=_bytes(column)) for name, column in columns}


def _bytes(column: Floats) -> bytes:
    return column.astype("<f4", copy=False).tobytes()
