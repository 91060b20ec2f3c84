"""The contract, read off its descriptors: what is asked for is obeyed or refused, never ignored."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2

from rangefinder.internal.v1 import node_pb2, packed_pb2
from rangefinder.v1 import (
    candidate_source_pb2,
    cluster_pb2,
    item_pb2,
    ranking_pb2,
    recommendation_pb2,
    types_pb2,
)
from tests.kit.calls import (
    Failure,
    add_unknown_field,
    answers_to_bytes,
    failure_of,
    outcome_of,
)
from tests.kit.served import Served

SERVED_FILES = (recommendation_pb2, item_pb2, cluster_pb2)
STREAM = "rangefinder.v1.RecommendationService.RetrieveStream"

_ORACLE = "test_oracle.py::test_exact_answers_are_those_of_brute_force"
_TRUTHFUL = "test_oracle.py::test_answers_of_any_width_are_truthful"
_BATCHES = "test_oracle_identity.py::test_batches_answer_as_single_requests_do"
_STREAMS = "test_oracle_identity.py::test_streams_answer_as_single_requests_do"
_COVERAGE = "test_stream.py::test_minimum_coverage_decides_whether_a_part_is_an_answer"
_RELEASE = "test_requests.py::test_the_release_named_is_the_one_that_answers"
_REQUEST_ID = "test_requests.py::test_bad_requests_are_refused"
_GET_ITEMS = "test_items.py::test_items_come_in_the_order_asked_for"
_RECOMMENDED = "test_recommend.py::test_recommendations_are_those_of_the_oracle"
_SCAN_RANGES = "test_items.py::test_scans_of_ranges_of_keys_are_exact"

# Every field of the requests that are served, and the test that proves it is obeyed.
OBEYED = {
    "RetrieveRequest.query": _ORACLE,
    "RetrieveRequest.item_count": _ORACLE,
    "RetrieveRequest.search_width": _TRUTHFUL,
    "RetrieveRequest.exact": _ORACLE,
    "RetrieveRequest.excluded_items": _ORACLE,
    "RetrieveRequest.minimum_coverage": _COVERAGE,
    "RetrieveRequest.release": _RELEASE,
    "RetrieveRequest.request_id": _REQUEST_ID,
    "Vector.values": _ORACLE,
    "ItemIds.integers": _ORACLE,
    "ItemIds.texts": _ORACLE,
    "RecommendRequest.request_id": "test_recommend.py::test_a_request_has_an_id",
    "RecommendRequest.user_id": _RECOMMENDED,
    "RecommendRequest.user_embedding": _RECOMMENDED,
    "RecommendRequest.recent_items": _RECOMMENDED,
    "RecommendRequest.item_count": _RECOMMENDED,
    "RecommendRequest.candidate_count": _RECOMMENDED,
    "RecommendRequest.excluded_items": _RECOMMENDED,
    "RecommendRequest.exclude_seen": _RECOMMENDED,
    "RecommendRequest.minimum_coverage": (
        "test_recommend_faults.py::test_a_lost_node_costs_its_ranges_and_no_request"
    ),
    "RecommendRequest.release": "test_recommend.py::test_the_release_named_answers",
    "RecommendRequest.explain": "test_recommend.py::test_an_explanation_says_what_each_stage_thought",
    "RecommendRequest.pipeline": "test_recommend.py::test_a_pipeline_and_its_parameters_are_obeyed",
    "RecommendRequest.parameters": "test_recommend.py::test_a_pipeline_and_its_parameters_are_obeyed",
    "RecommendRequest.item_attributes": "test_recommend.py::test_attributes_come_where_asked_for",
    "RetrieveBatchRequest.queries": _BATCHES,
    "RetrieveBatchRequest.item_count": _BATCHES,
    "RetrieveBatchRequest.search_width": _BATCHES,
    "RetrieveBatchRequest.exact": _BATCHES,
    "RetrieveBatchRequest.excluded_items": _BATCHES,
    "RetrieveBatchRequest.minimum_coverage": _COVERAGE,
    "RetrieveBatchRequest.release": _RELEASE,
    "RetrieveBatchRequest.request_id": _REQUEST_ID,
    "VectorBlock.float32_le": _BATCHES,
    "VectorBlock.count": _BATCHES,
    "RetrieveStreamRequest.batch_id": _STREAMS,
    "RetrieveStreamRequest.batch": _STREAMS,
    "RetrieveStreamRequest.cancel": "test_stream.py::test_a_cancelled_batch_gets_no_answer",
    "RetrieveStreamRequest.time_allowed_ms": "test_stream.py::test_answers_come_as_they_are_ready",
    "GetItemsRequest.items": _GET_ITEMS,
    "GetItemsRequest.with_embeddings": "test_items.py::test_embeddings_come_where_asked_for",
    "GetItemsRequest.release": _RELEASE,
    "ScanItemsRequest.key_start": _SCAN_RANGES,
    "ScanItemsRequest.key_end": _SCAN_RANGES,
    "ScanItemsRequest.with_embeddings": "test_items.py::test_a_scan_is_the_catalogue_in_key_order",
    "ScanItemsRequest.release": _RELEASE,
}

# Refused as a whole, with whatever is in them.
REFUSED = {
    "RetrieveRequest.filter",
    "RetrieveBatchRequest.filter",
    "RecommendRequest.filter",
    "RecommendRequest.context",
    "RecommendRequest.page_token",
}

Path_ = tuple[FieldDescriptor, ...]  # From a request to one of its fields.


def working_requests() -> dict[str, Message]:
    """A request that is answered, for each RPC that is."""
    query = types_pb2.Vector(values=[1.0] * 32)
    block = types_pb2.VectorBlock(float32_le=b"\0\0\x80?" * 32, count=1)
    batch = recommendation_pb2.RetrieveBatchRequest(queries=block)
    ids = types_pb2.ItemIds(integers=[1])
    requests = {
        "RecommendationService.Retrieve": recommendation_pb2.RetrieveRequest(query=query),
        "RecommendationService.RetrieveBatch": batch,
        "RecommendationService.RetrieveStream": recommendation_pb2.RetrieveStreamRequest(
            batch_id=1, batch=batch
        ),
        "RecommendationService.Recommend": recommendation_pb2.RecommendRequest(user_embedding=query),
        "ItemService.GetItems": item_pb2.GetItemsRequest(items=ids),
        "ItemService.ScanItems": item_pb2.ScanItemsRequest(),
        "ClusterService.GetClusterMap": cluster_pb2.GetClusterMapRequest(),
        "ClusterService.GetClusterStatus": cluster_pb2.GetClusterStatusRequest(),
    }
    return {f"rangefinder.v1.{name}": request for name, request in requests.items()}


# Values that the request above may be given.
SAMPLES: dict[str, object] = {
    "item_count": 5,
    "search_width": 200,
    "exact": True,
    "minimum_coverage": 0.5,
    "request_id": "r-1",
    "batch_id": 7,
    "cancel": True,
    "time_allowed_ms": 9_000,
    "count": 1,
    "with_embeddings": True,
    "key_start": 1,
    "key_end": 2**63,
    "user_id": "7",
    "candidate_count": 30,
    "exclude_seen": True,
    "explain": True,
    "page_token": "a",
    "pipeline": "default",
}


def methods(*files: Any) -> list[MethodDescriptor]:
    """Every RPC of every service of the files."""
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    return [method for service in services for method in service.methods]


def fields(message: Descriptor, above: Path_ = ()) -> Iterator[Path_]:
    """Every field that can be set below a message, but not below what is refused as a whole."""
    for field in message.fields:
        path = (*above, field)
        yield path
        below = message_in(field)
        if below is not None and name_of(path) not in REFUSED:
            yield from fields(below, path)


def message_in(field: FieldDescriptor) -> Descriptor | None:
    """What may be set below a field; entries of a map have no fields to spare."""
    kind = field.message_type
    return None if kind is None or kind.GetOptions().map_entry else kind


def name_of(path: Path_) -> str:
    *_, message, field = path[-1].full_name.split(".")
    return f"{message}.{field}"


def message_at(request: Any, path: Path_) -> Any:
    """The message at a path, made where it is not there; the first of several."""
    for field in path:
        request = getattr(request, field.name)
        if not isinstance(request, Message):
            request = request[0] if len(request) else request.add()
        request.SetInParent()
    return request


def set_field(request: Any, path: Path_, release: str) -> None:
    """Give the field at a path a sample value; what has one already keeps it."""
    field, holder = path[-1], message_at(request, path[:-1])
    if field.message_type is not None and message_in(field) is None:
        getattr(holder, field.name)["index.quota"] = "50"
    elif field.message_type is not None:
        message_at(holder, (field,))
    elif field.name == "release":
        holder.release = release
    elif field.name in SAMPLES:
        setattr(holder, field.name, SAMPLES[field.name])
    elif not getattr(holder, field.name):
        getattr(holder, field.name).extend(["a"] if field.type == FieldDescriptor.TYPE_STRING else [1])


async def refusal(served: Served, method: str, request: Message) -> Failure | None:
    """How an RPC refuses a request; None where it does not. On a stream a batch fails by itself."""
    content = request.SerializeToString()
    outcome = await outcome_of(answers_to_bytes(served.channel, wire_name(method), content))
    if isinstance(outcome, Failure):
        return outcome
    for answer in outcome if method == STREAM else []:
        response = recommendation_pb2.RetrieveStreamResponse.FromString(answer)
        if response.WhichOneof("outcome") == "failure":
            code = code_pb2.Code.Name(response.failure.code)
            return Failure(code=code, domain="rangefinder", reason=response.failure.reason)
    return None


def wire_name(method: str) -> str:
    """The full name of an RPC as gRPC spells it."""
    return "/".join(method.rsplit(".", 1))


IMPLEMENTED = sorted(working_requests())
PATHS = [
    (method.full_name, path)
    for method in methods(*SERVED_FILES)
    if method.full_name in IMPLEMENTED
    for path in fields(method.input_type)
]


def test_the_table_of_fields_is_complete() -> None:
    """Every field of every request that is served stands in one of the tables, and none too many."""
    assert not OBEYED.keys() & REFUSED
    assert OBEYED.keys() | REFUSED == {name_of(path) for _, path in PATHS}


def test_the_table_of_fields_names_real_tests() -> None:
    """What is said to prove a field is a test of this folder."""
    for place in OBEYED.values():
        file, _, name = place.partition("::")
        tree = ast.parse((Path(__file__).parent / file).read_text())
        assert name in {getattr(node, "name", "") for node in tree.body}, place


@pytest.mark.parametrize("method", methods(*SERVED_FILES), ids=lambda method: method.full_name)
async def test_every_rpc_works_or_is_refused(plain: Served, method: MethodDescriptor) -> None:
    """What later versions bring is UNIMPLEMENTED/NOT_SUPPORTED, whatever is sent to it."""
    name = wire_name(method.full_name)
    if method.full_name in IMPLEMENTED:
        content = working_requests()[method.full_name].SerializeToString()
        assert len(await answers_to_bytes(plain.channel, name, content)) >= 1
        return
    for content in (b"", b"\xff\xff garbage"):
        failure = await failure_of(answers_to_bytes(plain.channel, name, content))
        assert failure.is_not_supported, failure
        assert method.name in failure.message


@pytest.mark.parametrize(
    ("method", "path"), PATHS, ids=[f"{method}:{name_of(path)}" for method, path in PATHS]
)
async def test_every_field_is_obeyed_or_refused(plain: Served, method: str, path: Path_) -> None:
    """A field that is set is refused with NOT_SUPPORTED, or stands in the table of what is obeyed."""
    request = working_requests()[method]
    set_field(request, path, plain.release.name)
    assert path[-1] in [field for field, _ in message_at(request, path[:-1]).ListFields()]
    failure = await refusal(plain, method, request)
    is_refused = failure is not None and failure.is_not_supported
    assert (name_of(path) in REFUSED) == is_refused, failure


@pytest.mark.parametrize("node", [field.name for field in types_pb2.Filter.DESCRIPTOR.fields])
async def test_every_filter_is_refused(plain: Served, node: str) -> None:
    """A filter of any form is refused as a whole, an empty one too."""
    for method in ("Retrieve", "RetrieveBatch", "Recommend"):
        name = f"rangefinder.v1.RecommendationService.{method}"
        for is_empty in (True, False):
            request: Any = working_requests()[name]
            request.filter.SetInParent()
            if not is_empty:
                getattr(request.filter, node).SetInParent()
            failure = await refusal(plain, name, request)
            assert failure is not None
            assert failure.is_not_supported, failure


MESSAGE_PATHS = [
    (method, path)
    for method, path in [*((each, ()) for each in IMPLEMENTED), *PATHS]
    if not path or (message_in(path[-1]) and name_of(path) not in REFUSED)
]


@pytest.mark.parametrize(
    ("method", "path"),
    MESSAGE_PATHS,
    ids=[f"{method}:{name_of(path) if path else ''}" for method, path in MESSAGE_PATHS],
)
async def test_unknown_fields_are_refused(plain: Served, method: str, path: Path_) -> None:
    """A field number that this version lacks is refused wherever it stands, not dropped."""
    request = working_requests()[method]
    add_unknown_field(message_at(request, path))
    failure = await refusal(plain, method, request)
    assert failure is not None
    assert failure.is_not_supported, failure


STRANGERS = [
    *(wire_name(method.full_name) for method in methods(ranking_pb2, candidate_source_pb2, node_pb2)),
    "rangefinder.v1.RecommendationService/Divine",
    "somebody.elses.Service/Method",
]


@pytest.mark.parametrize("name", STRANGERS)
async def test_services_of_others_are_refused(plain: Served, name: str) -> None:
    """A router has neither ranker, source nor node in it, and says so with a reason."""
    failure = await failure_of(answers_to_bytes(plain.channel, name, b""))
    assert failure.is_not_supported, failure
    assert name in failure.message


TWINS: dict[Any, Any] = {
    packed_pb2.PackedItemIds: types_pb2.ItemIds,
    packed_pb2.PackedRetrieveResponse: recommendation_pb2.RetrieveResponse,
    packed_pb2.PackedRetrieveBatchResponse: recommendation_pb2.RetrieveBatchResponse,
    packed_pb2.PackedBatchFailure: recommendation_pb2.BatchFailure,
    packed_pb2.PackedRetrieveStreamResponse: recommendation_pb2.RetrieveStreamResponse,
    packed_pb2.PackedFloatColumn: ranking_pb2.FloatColumn,
    packed_pb2.PackedRankResponse: ranking_pb2.RankResponse,
}

# The twin of a request that is filled in part: every field that it has is its public one's.
PARTIAL_TWINS: dict[Any, Any] = {packed_pb2.PackedRankRequest: ranking_pb2.RankRequest}

TWIN_OF = {public.DESCRIPTOR.full_name: packed.DESCRIPTOR.full_name for packed, public in TWINS.items()}

# Values of fixed size that follow one another in a packed field, and so in bytes.
_FIXED = (
    *(FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FIXED32),
    *(FieldDescriptor.TYPE_SFIXED32, FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64),
)


def on_the_wire(field: FieldDescriptor) -> tuple[object, ...]:
    """What two fields share that are the same bytes."""
    oneof = field.containing_oneof.name if field.containing_oneof else None
    message: object = None
    is_repeated, kind = field.is_repeated, field.type
    if is_repeated and kind in _FIXED:
        is_repeated, kind = False, FieldDescriptor.TYPE_BYTES
    elif is_repeated and kind == FieldDescriptor.TYPE_STRING:
        kind = FieldDescriptor.TYPE_BYTES
    elif field.message_type is not None and message_in(field) is None:  # A map: what it maps to what.
        message = [on_the_wire(part) for part in field.message_type.fields]
    elif field.message_type is not None:
        message = TWIN_OF.get(field.message_type.full_name, field.message_type.full_name)
    return field.number, field.name, is_repeated, kind, message, oneof, field.has_presence


def test_packed_twins_are_all_known() -> None:
    """Every message of packed.proto is the twin of a public one, or wraps one already written."""
    twins = (*TWINS, *PARTIAL_TWINS, packed_pb2.PackedSearchRequest)
    assert {packed.DESCRIPTOR.name for packed in twins} == set(
        packed_pb2.DESCRIPTOR.message_types_by_name
    )


def test_a_packed_search_reads_as_a_search() -> None:
    """A batch that was written once for all nodes is a message in what each of them gets."""
    batch = node_pb2.SearchBatch(map_epoch=3, release="r", queries=b"12345678", item_counts=[4, 7])
    packed = packed_pb2.PackedSearchRequest(
        search_id=9, batch=batch.SerializeToString(), shards=["s-0", "s-1"]
    )
    assert node_pb2.SearchRequest(
        search_id=9, batch=batch, shards=["s-0", "s-1"]
    ) == node_pb2.SearchRequest.FromString(packed.SerializeToString())


@pytest.mark.parametrize("packed", TWINS, ids=lambda packed: packed.DESCRIPTOR.name)
def test_packed_twins_are_the_public_messages_on_the_wire(packed: Any) -> None:
    """A twin has every field of its public message, with its number, name, and the same bytes."""
    public = TWINS[packed]
    expected = [on_the_wire(field) for field in public.DESCRIPTOR.fields]
    assert expected == [on_the_wire(field) for field in packed.DESCRIPTOR.fields]


@pytest.mark.parametrize("packed", PARTIAL_TWINS, ids=lambda packed: packed.DESCRIPTOR.name)
def test_what_a_partial_twin_has_is_its_public_message_on_the_wire(packed: Any) -> None:
    """A twin that leaves out fields has the others as its public message has them."""
    public = PARTIAL_TWINS[packed]
    expected = {field.number: on_the_wire(field) for field in public.DESCRIPTOR.fields}
    found = {field.number: on_the_wire(field) for field in packed.DESCRIPTOR.fields}
    assert {number: expected[number] for number in found} == found


def test_a_filled_twin_is_its_public_message_byte_for_byte() -> None:
    """What a router writes as arrays reads as columns, and is written again as the same bytes."""
    ids, scores = [-(2**63), -1, 0, 7, 2**63 - 1], [-0.0, 1.5, 3.4e38, -1e-45, 0.25]
    certificate = types_pb2.Certificate(map_epoch=3, release="r", replica_lag_ms=0)
    twin = packed_pb2.PackedRetrieveStreamResponse(
        batch_id=2**64 - 1,
        batch=packed_pb2.PackedRetrieveBatchResponse(
            items=packed_pb2.PackedItemIds(
                integers=np.array(ids, "<i8").tobytes(), texts=["é".encode(), b""]
            ),
            scores=np.array(scores, "<f4").tobytes(),
            item_counts=[2, 0, 3],
            certificate=certificate,
        ),
    )
    content = twin.SerializeToString()
    public = recommendation_pb2.RetrieveStreamResponse.FromString(content)
    assert ids == list(public.batch.items.integers)
    assert ["é", ""] == list(public.batch.items.texts)
    assert np.array(scores, "<f4").tolist() == list(public.batch.scores)
    assert [2, 0, 3] == list(public.batch.item_counts)
    assert certificate == public.batch.certificate
    assert content == public.SerializeToString()
