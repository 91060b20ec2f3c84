"""Requests that cannot be served as they are: a status, a reason, the field; never a wrong answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from rangefinder.v1 import cluster_pb2, item_pb2, recommendation_pb2
from rangefinder.v1.item_pb2 import GetItemsRequest, ScanItemsRequest
from rangefinder.v1.recommendation_pb2 import RecommendRequest, RetrieveBatchRequest, RetrieveRequest
from rangefinder.v1.types_pb2 import ItemIds, Vector, VectorBlock
from tests.kit import oracle
from tests.kit.calls import Failure, answers_to_bytes, failure_of, outcome_of
from tests.kit.served import DEADLINE_S, Served

DIMENSION = 24
NAN, INFINITY = float("nan"), float("inf")
TEXT_ID = ItemIds(texts=["a"])

RETRIEVE = "rangefinder.v1.RecommendationService/Retrieve"
RECOMMEND = "rangefinder.v1.RecommendationService/Recommend"
BATCH = "rangefinder.v1.RecommendationService/RetrieveBatch"
GET_ITEMS = "rangefinder.v1.ItemService/GetItems"
SCAN_ITEMS = "rangefinder.v1.ItemService/ScanItems"


def vector(*values: float) -> Vector:
    return Vector(values=[*values, *[0.5] * (DIMENSION - len(values))])


def retrieve(**fields: Any) -> RetrieveRequest:
    return RetrieveRequest(**{"query": vector()} | fields)


def block(count: int, *values: float, size: int | None = None) -> VectorBlock:
    """A block that says it has `count` rows; `size` bytes, those of as many rows by default."""
    content = np.full(max(count, 1) * DIMENSION, 0.5, "<f4")
    content[: len(values)] = values
    return VectorBlock(float32_le=content.tobytes()[:size], count=count)


def batch(count: int = 2, **fields: Any) -> RetrieveBatchRequest:
    return RetrieveBatchRequest(**{"queries": block(count)} | fields)


def integers(count: int) -> ItemIds:
    return ItemIds(integers=range(count))


@dataclass(frozen=True, slots=True)
class Bad:
    """A request to a cluster of integer ids, and how it is refused."""

    method: str
    request: Message
    field: str = ""  # Of BadRequest; empty: there is none.
    reason: str = "INVALID_REQUEST"
    code: str = "INVALID_ARGUMENT"


def bad_conditions(method: str, make: Callable[..., Message]) -> dict[str, Bad]:
    """What Retrieve and RetrieveBatch have in common."""
    fields: dict[str, tuple[str, dict[str, Any]]] = {
        "negative count": ("item_count", {"item_count": -1}),
        "count too large": ("item_count", {"item_count": 10_001}),
        "negative width": ("search_width", {"item_count": 10, "search_width": -1}),
        "width under count": ("search_width", {"item_count": 10, "search_width": 9}),
        "width under default count": ("search_width", {"search_width": 99}),
        "width too large": ("search_width", {"item_count": 10, "search_width": 10_001}),
        "width with exact": ("search_width", {"exact": True, "item_count": 1, "search_width": 10}),
        "coverage NaN": ("minimum_coverage", {"minimum_coverage": NAN}),
        "coverage negative": ("minimum_coverage", {"minimum_coverage": -0.01}),
        "coverage over 1": ("minimum_coverage", {"minimum_coverage": 1.01}),
        "coverage infinite": ("minimum_coverage", {"minimum_coverage": INFINITY}),
        "request_id too long": ("request_id", {"request_id": "é" * 65}),
    }
    bad = {
        f"{method}: {name}": Bad(method, make(**each), field) for name, (field, each) in fields.items()
    }
    unknown = make(release="none such")
    bad[f"{method}: unknown release"] = Bad(
        method, unknown, reason="UNKNOWN_RELEASE", code="FAILED_PRECONDITION"
    )
    return bad


def recommend(**fields: Any) -> RecommendRequest:
    return RecommendRequest(**{"user_embedding": vector()} | fields)


def bad_recommendations() -> dict[str, Bad]:
    """What Recommend refuses; each rule has a test in tests/unit/test_recommend_requests.py."""
    fields: dict[str, dict[str, Any]] = {
        "user_id": {"user_id": "x" * 257},
        "request_id": {"request_id": "é" * 65},
        "item_count": {"item_count": 1_001},
        "candidate_count": {"item_count": 20, "candidate_count": 19},
        "recent_items": {"recent_items": integers(1_001)},
        "excluded_items": {"excluded_items": integers(10_001)},
        "user_embedding.values": {"user_embedding": vector(NAN)},
        "minimum_coverage": {"minimum_coverage": NAN},
        "item_attributes": {"item_attributes": ["title"] * 33},
        "pipeline": {"pipeline": "none such"},
        "parameters": {"parameters": {"none.such": "1"}},
    }
    bad = {
        f"recommend: {field}": Bad(RECOMMEND, recommend(**each), field)
        for field, each in fields.items()
    }
    short = recommend(user_embedding=Vector(values=[0.5] * 23))
    return bad | {
        "recommend: a value too few": Bad(RECOMMEND, short, reason="WRONG_DIMENSION"),
        "recommend: unknown release": Bad(
            RECOMMEND,
            recommend(release="none such"),
            reason="UNKNOWN_RELEASE",
            code="FAILED_PRECONDITION",
        ),
        "recommend: nobody": Bad(
            RECOMMEND, RecommendRequest(), reason="UNKNOWN_USER", code="NOT_FOUND"
        ),
    }


BAD = {
    **bad_recommendations(),
    **bad_conditions(RETRIEVE, retrieve),
    **bad_conditions(BATCH, batch),
    "no query": Bad(RETRIEVE, RetrieveRequest(), reason="WRONG_DIMENSION"),
    "a value too few": Bad(
        RETRIEVE, retrieve(query=Vector(values=[0.5] * 23)), reason="WRONG_DIMENSION"
    ),
    "a value too many": Bad(
        RETRIEVE, retrieve(query=Vector(values=[0.5] * 25)), reason="WRONG_DIMENSION"
    ),
    "NaN": Bad(RETRIEVE, retrieve(query=vector(NAN)), "query.values"),
    "infinity": Bad(RETRIEVE, retrieve(query=vector(1, -INFINITY)), "query.values"),
    "too large to square": Bad(RETRIEVE, retrieve(query=vector(1.9e19)), "query.values"),
    "text among integers": Bad(RETRIEVE, retrieve(excluded_items=TEXT_ID), "excluded_items"),
    "both kinds": Bad(
        RETRIEVE, retrieve(excluded_items=ItemIds(integers=[1], texts=["a"])), "excluded_items"
    ),
    "10,001 excluded": Bad(RETRIEVE, retrieve(excluded_items=integers(10_001)), "excluded_items"),
    "no block": Bad(BATCH, RetrieveBatchRequest(), "queries.count"),
    "0 rows": Bad(BATCH, batch(queries=VectorBlock(count=0)), "queries.count"),
    "0 rows with bytes": Bad(BATCH, batch(queries=block(0)), "queries.count"),
    "-1 rows": Bad(BATCH, batch(queries=block(-1)), "queries.count"),
    "1,025 rows": Bad(BATCH, batch(1_025, item_count=1), "queries.count"),
    "rows without bytes": Bad(BATCH, batch(queries=block(2, size=0)), "queries.float32_le"),
    "a byte too few": Bad(BATCH, batch(queries=block(2, size=191)), "queries.float32_le"),
    "a value short": Bad(BATCH, batch(queries=block(3, size=284)), "queries.float32_le"),
    "rows of another length": Bad(BATCH, batch(queries=block(2, size=160)), reason="WRONG_DIMENSION"),
    "NaN in a block": Bad(BATCH, batch(queries=block(2, 1, NAN)), "queries.float32_le"),
    "infinity in a block": Bad(BATCH, batch(queries=block(2, INFINITY)), "queries.float32_le"),
    "200,001 items": Bad(BATCH, batch(201, item_count=1_000), "item_count"),
    "200,704 items": Bad(BATCH, batch(1_024, item_count=196), "item_count"),
    "exclusions for one of two": Bad(BATCH, batch(excluded_items=[integers(1)]), "excluded_items"),
    "exclusions for three of two": Bad(
        BATCH, batch(excluded_items=[integers(1)] * 3), "excluded_items"
    ),
    "10,001 excluded for one": Bad(
        BATCH, batch(excluded_items=[integers(10_001), integers(0)]), "excluded_items"
    ),
    "100,001 excluded in all": Bad(
        BATCH, batch(11, excluded_items=[*[integers(9_091)] * 11]), "excluded_items"
    ),
    "text excluded": Bad(BATCH, batch(excluded_items=[integers(1), TEXT_ID]), "excluded_items"),
    "no ids": Bad(GET_ITEMS, GetItemsRequest(), "items"),
    "0 ids": Bad(GET_ITEMS, GetItemsRequest(items=ItemIds()), "items"),
    "1,001 ids": Bad(GET_ITEMS, GetItemsRequest(items=integers(1_001)), "items"),
    "text ids": Bad(GET_ITEMS, GetItemsRequest(items=TEXT_ID), "items"),
    "items of an unknown release": Bad(
        GET_ITEMS,
        GetItemsRequest(items=integers(1), release="none such"),
        reason="UNKNOWN_RELEASE",
        code="FAILED_PRECONDITION",
    ),
    "an empty range": Bad(SCAN_ITEMS, ScanItemsRequest(key_start=7, key_end=7), "key_end"),
    "a range backwards": Bad(SCAN_ITEMS, ScanItemsRequest(key_start=8, key_end=7), "key_end"),
    "a scan of an unknown release": Bad(
        SCAN_ITEMS,
        ScanItemsRequest(release="none such"),
        reason="UNKNOWN_RELEASE",
        code="FAILED_PRECONDITION",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_requests_are_refused(ip_nasty: Served, name: str) -> None:
    """Each fault has its status, reason and field, and a message that says what would be right."""
    bad = BAD[name]
    content = bad.request.SerializeToString()
    failure = await failure_of(answers_to_bytes(ip_nasty.channel, bad.method, content))
    expected = (bad.code, "rangefinder", bad.reason, (bad.field,) if bad.field else ())
    assert expected == (failure.code, failure.domain, failure.reason, failure.fields)
    assert failure.message.startswith(bad.field)
    assert len(failure.message) > len(bad.field) + 10


GOOD = {
    "request_id of 128 bytes": (RETRIEVE, retrieve(request_id="é" * 64)),
    "widest of the smallest": (RETRIEVE, retrieve(item_count=1, search_width=10_000)),
    "10,000 excluded": (RETRIEVE, retrieve(excluded_items=integers(10_000))),
    "no exclusions": (RETRIEVE, retrieve(excluded_items=ItemIds())),
    "largest values": (RETRIEVE, retrieve(query=vector(*[3.7e18] * DIMENSION))),
    "smallest values": (RETRIEVE, retrieve(query=Vector(values=[1e-45] * DIMENSION))),
    "1,024 rows, 199,680 items": (BATCH, batch(1_024, item_count=195)),
    "100,000 excluded": (BATCH, batch(10, excluded_items=[integers(10_000)] * 10)),
    "1,000 ids": (GET_ITEMS, GetItemsRequest(items=integers(1_000))),
    "the last key": (SCAN_ITEMS, ScanItemsRequest(key_start=2**64 - 1)),
}


@pytest.mark.parametrize("name", GOOD)
async def test_requests_at_the_limits_are_answered(ip_nasty: Served, name: str) -> None:
    """The last value that is allowed is served."""
    method, request = GOOD[name]
    await answers_to_bytes(ip_nasty.channel, method, request.SerializeToString())


BAD_TEXTS = {
    "integers": ItemIds(integers=[1]),
    "an empty id": ItemIds(texts=["a", ""]),
    "257 bytes": ItemIds(texts=["é" * 128 + "x"]),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
async def test_bad_text_ids_are_refused(cosine_nasty: Served, name: str) -> None:
    """In a cluster of text ids: an integer, an empty text and one over 256 bytes are no ids."""
    ids = BAD_TEXTS[name]
    requests: dict[str, tuple[Message, str]] = {
        RETRIEVE: (retrieve(excluded_items=ids), "excluded_items"),
        BATCH: (batch(1, excluded_items=[ids]), "excluded_items"),
        GET_ITEMS: (GetItemsRequest(items=ids), "items"),
    }
    for method, (request, field) in requests.items():
        content = request.SerializeToString()
        failure = await failure_of(answers_to_bytes(cosine_nasty.channel, method, content))
        assert ("INVALID_ARGUMENT", "INVALID_REQUEST", (field,)) == (
            failure.code,
            failure.reason,
            failure.fields,
        )


UNARY = [
    f"{service.full_name}/{method.name}"
    for file in (recommendation_pb2, item_pb2, cluster_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not method.client_streaming
]
SERVED = (
    *(RETRIEVE, BATCH, RECOMMEND, GET_ITEMS, SCAN_ITEMS, "rangefinder.v1.ClusterService/GetClusterMap"),
    "rangefinder.v1.ClusterService/GetClusterStatus",
)

# A field without its bytes, an unfinished number, a length beyond the end, a group that never ends.
GARBAGE = (b"\x0a", b"\x08\xff", b"\x0a\x7fabc", b"\xfb\xff\xff\xff", b"\0" * 100, b"\xff" * 100_000)


@pytest.mark.parametrize("method", UNARY)
async def test_garbage_is_refused(ip_nasty: Served, method: str) -> None:
    """Bytes that are no message of the RPC are INVALID_REQUEST, or NOT_SUPPORTED with the RPC."""
    for content in GARBAGE:
        failure = await failure_of(answers_to_bytes(ip_nasty.channel, method, content))
        if method in SERVED:
            expected = ("INVALID_ARGUMENT", "rangefinder", "INVALID_REQUEST", ("request",))
            assert expected == (failure.code, failure.domain, failure.reason, failure.fields)
        else:
            assert failure.is_not_supported, failure


async def test_text_that_is_not_utf8_is_refused(ip_nasty: Served) -> None:
    """A string field whose bytes are no UTF-8 makes the request no message."""
    content = retrieve(request_id="xx").SerializeToString().replace(b"xx", b"\xc3\x28")
    failure = await failure_of(answers_to_bytes(ip_nasty.channel, RETRIEVE, content))
    assert ("INVALID_REQUEST", ("request",)) == (failure.reason, failure.fields)


async def test_the_release_named_is_the_one_that_answers(ip_nasty: Served) -> None:
    """The name of the release that is served is accepted by every RPC and stands in the certificate."""
    name = ip_nasty.release.name
    request = retrieve(release=name)
    one = await ip_nasty.recommendations.Retrieve(request, timeout=DEADLINE_S)
    assert name == one.certificate.release
    many = await ip_nasty.recommendations.RetrieveBatch(batch(release=name), timeout=DEADLINE_S)
    assert name == many.certificate.release
    items = await ip_nasty.items.GetItems(
        GetItemsRequest(items=integers(1), release=name), timeout=DEADLINE_S
    )
    assert name == items.certificate.release
    pages = [page async for page in ip_nasty.items.ScanItems(ScanItemsRequest(release=name))]
    assert name == pages[-1].certificate.release


async def test_an_id_excluded_many_times_is_excluded_once(ip_nasty: Served) -> None:
    """Repeated and unknown ids among the excluded ones change neither the answer nor its length."""
    catalogue = ip_nasty.catalogue
    query = catalogue.queries[30]
    scores = oracle.scores("ip", catalogue.rows, query)
    top = [row for row, _ in oracle.best(scores, catalogue.keys, 20)]
    ids = [int(catalogue.ids[row]) for row in top]
    truth = oracle.best(scores, catalogue.keys, 50, frozenset(top))
    answer = await ip_nasty.client.retrieve(query, 50, exact=True, excluded_ids=[*ids * 400, 5, 5])
    assert [catalogue.ids[row] for row, _ in truth] == answer.ids.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("exact", [False, True])
async def test_more_items_than_there_are_gives_all_of_them(ip_nasty: Served, exact: bool) -> None:
    """A count beyond the catalogue is answered with every item, once, in order."""
    catalogue = ip_nasty.catalogue
    scores = oracle.scores("ip", catalogue.rows, catalogue.queries[31])
    truth = oracle.best(scores, catalogue.keys, 10_000)
    expected = [catalogue.ids[row] for row, _ in truth]
    answer = await ip_nasty.client.retrieve(catalogue.queries[31], 10_000, exact=exact)
    assert expected == list(answer.ids)
    batch = await ip_nasty.client.retrieve_batch(catalogue.queries[31:33], 10_000, exact=exact)
    assert expected == list(batch.of_query(0)[0])
    assert [len(expected)] * 2 == batch.item_counts.tolist()


@pytest.mark.parametrize("timeout_s", [0.0, 1e-6, 0.001, 0.003])
async def test_an_expired_deadline_is_not_an_answer(ip_nasty: Served, timeout_s: float) -> None:
    """With no time left a call ends with DEADLINE_EXCEEDED, or with what was had, and says so."""
    request = batch(200, item_count=1_000, exact=True)
    for _ in range(5):
        call = ip_nasty.recommendations.RetrieveBatch(request, timeout=timeout_s)
        outcome = await outcome_of(call)
        if isinstance(outcome, Failure):
            assert "DEADLINE_EXCEEDED" == outcome.code
            assert outcome.reason in ("DEADLINE_SPENT", "")  # The caller's library may be first.
        else:
            missed = {each.reason for each in outcome.certificate.missed_ranges}
            assert missed <= {"DEADLINE_SPENT"}
            assert bool(missed) == (
                outcome.certificate.item_count_searched < outcome.certificate.item_count
            )


async def test_an_answer_beyond_4_mib_is_refused(cosine_nasty: Served) -> None:
    """Long text ids may make an answer too large: it is refused with a reason, a smaller one is not."""
    too_many = batch(60, item_count=1_000)
    failure = await failure_of(cosine_nasty.recommendations.RetrieveBatch(too_many, timeout=DEADLINE_S))
    assert ("INVALID_ARGUMENT", "INVALID_REQUEST") == (failure.code, failure.reason)
    assert "4 MiB" in failure.message
    fewer = batch(20, item_count=1_000)
    answer = await cosine_nasty.recommendations.RetrieveBatch(fewer, timeout=DEADLINE_S)
    assert 20_000 == len(answer.items.texts)


async def test_a_request_of_10_mib_is_answered(cosine_nasty: Served) -> None:
    """Requests may exceed the 4 MiB that gRPC servers take by default."""
    texts = [f"{number:0110d}" for number in range(10_000)]
    request = batch(10, item_count=1, excluded_items=[ItemIds(texts=texts)] * 10)
    assert request.ByteSize() > 10 << 20
    answer = await cosine_nasty.recommendations.RetrieveBatch(request, timeout=DEADLINE_S)
    assert 10 == len(answer.items.texts)


async def test_large_requests_at_once_do_not_cost_a_node(cosine_nasty: Served) -> None:
    """Requests that are answered alone are answered when hundreds of them come at once."""
    query = cosine_nasty.catalogue.queries[0]
    expected = await cosine_nasty.client.retrieve(query, 4_000)
    answers = await asyncio.gather(
        *(cosine_nasty.client.retrieve(query, 4_000, minimum_coverage=1.0) for _ in range(150))
    )
    assert {tuple(expected.ids)} == {tuple(answer.ids) for answer in answers}


async def test_after_all_that_the_clusters_answer(ip_nasty: Served, cosine_nasty: Served) -> None:
    """No process has left a traceback or was lost: what is refused is no failure of the server."""
    for served in (ip_nasty, cosine_nasty):
        await served.until_whole()
        assert [] == served.tracebacks()
        status = await served.clusters.GetClusterStatus(
            cluster_pb2.GetClusterStatusRequest(), timeout=DEADLINE_S
        )
        assert all(node.healthy for node in status.nodes)
        assert all(replica.healthy for replica in status.replicas)
        assert grpc.ChannelConnectivity.READY is served.channel.get_state()
