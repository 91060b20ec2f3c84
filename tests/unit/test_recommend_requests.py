"""RecommendRequest: every field checked, each fault named."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rangefinder.cluster_map import ClusterMap
from rangefinder.errors import ReleaseNotServed, UnknownRelease, WrongDimension
from rangefinder.keys import IdKind, keys_of_integers, keys_of_texts
from rangefinder.v1.recommendation_pb2 import RecommendRequest
from rangefinder.v1.types_pb2 import ItemIds, Vector
from router.pipeline import Pipeline
from router.recommend_requests import OBEYED_RECOMMEND, Wish, wish_of
from tests.unit.asked import MAP, TEXT_MAP, field_refused

PIPELINES = {"small": Pipeline(candidate_count=50)}


def wish(cluster_map: ClusterMap = MAP, **fields: Any) -> Wish:
    return wish_of(RecommendRequest(**fields), cluster_map, PIPELINES)


def test_an_empty_request_takes_the_defaults() -> None:
    """20 items, the pipeline's candidates, nobody in particular, an id of its own."""
    empty = wish()
    assert (20, 500) == (empty.item_count, empty.candidate_count)
    assert ("", None, False, False) == (
        empty.user_id,
        empty.user_embedding,
        empty.exclude_seen,
        empty.explain,
    )
    assert [0, 0] == [len(empty.recent), len(empty.excluded)]
    assert (Pipeline(), "r-1", 0.0) == (empty.pipeline, empty.release.name, empty.minimum_coverage)
    assert empty.request_id != wish().request_id


def test_fields_are_taken_as_they_are() -> None:
    """Ids become keys in their order, attributes a set."""
    ids = [5, -7, 5]
    full = wish(
        request_id="r",
        user_id="ü" * 128,
        user_embedding=Vector(values=[1, 2, 3]),
        recent_items=ItemIds(integers=ids),
        excluded_items=ItemIds(integers=ids[:1]),
        item_attributes=["title", "year", "title"],
        minimum_coverage=0.5,
    )
    keys = keys_of_integers(np.array(ids), IdKind.INTEGER).tolist()
    assert (keys, keys[:1]) == (full.recent.tolist(), full.excluded.tolist())
    assert ("r", "ü" * 128, frozenset({"title", "year"})) == (
        full.request_id,
        full.user_id,
        full.attributes,
    )
    assert full.user_embedding is not None
    assert [[1, 2, 3]] == full.user_embedding.tolist()
    texts = wish(TEXT_MAP, recent_items=ItemIds(texts=["é"]))
    assert keys_of_texts(["é".encode()]).tolist() == texts.recent.tolist()


@pytest.mark.parametrize(
    ("item_count", "candidate_count", "pipeline", "wanted"),
    [
        (0, 0, "", 500),
        (1_000, 0, "", 1_000),
        (60, 0, "small", 60),
        (10, 0, "small", 50),
        (10, 10, "", 10),
        (0, 10_000, "small", 10_000),
    ],
)
def test_candidates_are_never_fewer_than_items(
    item_count: int, candidate_count: int, pipeline: str, wanted: int
) -> None:
    """Where the request names no number, it is the pipeline's, or as many as are to be returned."""
    asked = wish(item_count=item_count, candidate_count=candidate_count, pipeline=pipeline)
    assert wanted == asked.candidate_count


LONG = ItemIds(integers=range(10_001))

BAD: list[tuple[str, dict[str, Any]]] = [
    ("user_id", {"user_id": "x" * 257}),
    ("user_id", {"user_id": "ü" * 129}),
    ("request_id", {"request_id": "x" * 129}),
    ("item_count", {"item_count": -1}),
    ("item_count", {"item_count": 1_001}),
    ("candidate_count", {"candidate_count": -1}),
    ("candidate_count", {"candidate_count": 19}),
    ("candidate_count", {"item_count": 100, "candidate_count": 99}),
    ("candidate_count", {"candidate_count": 10_001}),
    ("recent_items", {"recent_items": ItemIds(integers=range(1_001))}),
    ("recent_items", {"recent_items": ItemIds(texts=["a"])}),
    ("excluded_items", {"excluded_items": LONG}),
    ("excluded_items", {"excluded_items": ItemIds(texts=["a"])}),
    ("user_embedding.values", {"user_embedding": Vector(values=[1, math.nan, 3])}),
    ("user_embedding.values", {"user_embedding": Vector(values=[1, math.inf, 3])}),
    ("user_embedding.values", {"user_embedding": Vector(values=[1e30, 2, 3])}),
    ("minimum_coverage", {"minimum_coverage": 1.01}),
    ("minimum_coverage", {"minimum_coverage": math.nan}),
    ("item_attributes", {"item_attributes": [str(number) for number in range(33)]}),
    ("item_attributes", {"item_attributes": ["title", ""]}),
    ("pipeline", {"pipeline": "large"}),
    ("parameters", {"parameters": {"index.quota": "-1"}}),
]


@pytest.mark.parametrize(("field", "fields"), BAD)
def test_a_bad_field_is_named(field: str, fields: dict[str, Any]) -> None:
    """In an InvalidRequest."""
    assert field == field_refused(lambda: wish(**fields))


@pytest.mark.parametrize("field", ["recent_items", "excluded_items"])
@pytest.mark.parametrize("text", ["", "x" * 257])
def test_a_bad_text_id_is_refused(field: str, text: str) -> None:
    """Ids of a text cluster have 1 to 256 bytes, and are no integers."""
    assert field == field_refused(lambda: wish(TEXT_MAP, **{field: ItemIds(texts=[text])}))
    assert field == field_refused(lambda: wish(TEXT_MAP, **{field: ItemIds(integers=[1])}))


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 4])
def test_an_embedding_of_another_dimension_is_refused(values: list[float]) -> None:
    """Also one that is there but empty; the dimension is that of the release asked for."""
    with pytest.raises(WrongDimension, match="of release r-1 have 3"):
        wish(user_embedding=Vector(values=values))
    assert wish(release="r-2", user_embedding=Vector(values=[1] * 4)).user_embedding is not None


def test_another_release_is_refused() -> None:
    """One that is not in the map, and one that is not served."""
    with pytest.raises(UnknownRelease):
        wish(release="r-9")
    with pytest.raises(ReleaseNotServed):
        wish(release="r-3")


def test_what_is_called_obeyed_are_fields() -> None:
    """So that none is misspelt; what is not there yet is not called obeyed."""
    fields = set(RecommendRequest.DESCRIPTOR.fields_by_name)
    assert {"filter", "context", "page_token"} == fields - OBEYED_RECOMMEND
    assert fields >= OBEYED_RECOMMEND


def test_a_wish_keeps_no_more_than_it_needs() -> None:
    """An equal request gives an equal wish, but for what is made anew: nothing else is random."""
    one, other = wish(request_id="r"), wish(request_id="r")
    assert replace(one, recent=other.recent, excluded=other.excluded) == other
