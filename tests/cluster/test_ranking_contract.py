"""The contract of RankingService, read off its descriptors: what is set is obeyed or refused."""

import ast
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from rangefinder.v1 import ranking_pb2
from rangefinder.v1.ranking_pb2 import FloatColumn
from tests.kit.calls import Failure, add_unknown_field, answers_to_bytes, failure_of, outcome_of
from tests.kit.ranked_world import write_ranked_release
from tests.kit.ranking import LIST_MODELS, RANK, RunningRanker, request_of, running_ranker

_ANSWERS = "test_answers_are_what_the_model_says_of_the_features"
_NAMED = "test_the_model_named_is_the_one_that_ranks"

# Every field that is obeyed, and the test of test_ranking.py that proves it.
OBEYED = {
    "RankRequest.request_id": "test_bad_requests_are_refused",
    "RankRequest.items": _ANSWERS,
    "ItemIds.integers": _ANSWERS,
    "ItemIds.texts": _ANSWERS,
    "RankRequest.sources": _ANSWERS,
    "RankRequest.source_scores": _ANSWERS,
    "RankRequest.item_features": "test_what_is_known_of_items_comes_from_the_request_first",
    "FloatColumn.values": "test_what_is_known_of_items_comes_from_the_request_first",
    "RankRequest.model": _NAMED,
    "RankRequest.model_version": _NAMED,
    "RankRequest.release": _NAMED,
    "RankRequest.item_count": "test_item_count_cuts_the_answer_alone",
    "RankRequest.head_weights": "test_head_weights_scale_the_score",
    "RankRequest.explain": _ANSWERS,
}

# Refused as a whole, with whatever is in them.
REFUSED = {
    *("RankRequest.user_id", "RankRequest.user_embedding"),
    *("RankRequest.user_features", "RankRequest.context"),
}

Path_ = tuple[FieldDescriptor, ...]  # From the request to one of its fields.


@pytest.fixture(scope="module")
async def ranker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningRanker]:
    folder = tmp_path_factory.mktemp("ranking_contract")
    async with running_ranker(write_ranked_release(folder / "release"), folder / "process") as running:
        yield running


def fields(message: Descriptor, above: Path_ = ()) -> Iterator[Path_]:
    """Every field that can be set below a message, but not below what is refused as a whole."""
    for field in message.fields:
        path = (*above, field)
        yield path
        below = message_below(field)
        if below is not None and name_of(path) not in REFUSED:
            yield from fields(below, path)


def message_below(field: FieldDescriptor) -> Descriptor | None:
    """The message that a field holds, those that a map maps to included."""
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return kind.fields_by_name["value"].message_type
    return kind


def name_of(path: Path_) -> str:
    *_, message, field = path[-1].full_name.split(".")
    return f"{message}.{field}"


def message_at(request: Any, path: Path_) -> Any:
    """The message at a path, made where it is not there."""
    for field in path:
        value = getattr(request, field.name)
        request = value if isinstance(value, Message) else value["popularity"]
        request.SetInParent()
    return request


PATHS = list(fields(ranking_pb2.RankRequest.DESCRIPTOR))
SAMPLES: dict[str, object] = {
    "request_id": "r-1",
    "user_id": "7",
    "item_count": 5,
    "explain": True,
    "release": "release",
}


def set_field(ranker: RunningRanker, request: Any, path: Path_) -> None:
    """Give the field at a path a value; what has one keeps it."""
    field, holder = path[-1], message_at(request, path[:-1])
    samples = SAMPLES | {
        "model": ranker.release.card.model,
        "model_version": ranker.release.card.version,
    }
    if field.name == "item_features":
        holder.item_features["popularity"].CopyFrom(FloatColumn(values=[0.5] * 40))
    elif field.name == "values":
        holder.values.extend([0.5] * 40)
    elif field.name == "head_weights":
        holder.head_weights["relevance"] = 2.0
    elif field.name in samples:
        setattr(holder, field.name, samples[field.name])
    elif field.name == "texts":
        holder.texts.append("a")
    elif field.message_type is not None:
        message_at(holder, (field,))


async def refusal(ranker: RunningRanker, request: Message, method: str = RANK) -> Failure | None:
    content = request.SerializeToString()
    outcome = await outcome_of(answers_to_bytes(ranker.channel, method, content))
    return outcome if isinstance(outcome, Failure) else None


def test_the_table_of_fields_is_complete() -> None:
    """Every field of the request stands in one of the tables, with a real test, and none too many."""
    assert not OBEYED.keys() & REFUSED
    assert OBEYED.keys() | REFUSED == {name_of(path) for path in PATHS}
    tree = ast.parse((Path(__file__).parent / "test_ranking.py").read_text())
    assert set(OBEYED.values()) <= {getattr(node, "name", "") for node in tree.body}


@pytest.mark.parametrize("path", PATHS, ids=name_of)
async def test_every_field_is_obeyed_or_refused(ranker: RunningRanker, path: Path_) -> None:
    """A field that is set is refused with NOT_SUPPORTED, or stands in the table of what is obeyed."""
    request = request_of(ranker.release)
    set_field(ranker, request, path)
    assert path[-1] in [field for field, _ in message_at(request, path[:-1]).ListFields()]
    failure = await refusal(ranker, request)
    assert (name_of(path) in REFUSED) == (failure is not None and failure.is_not_supported), failure


@pytest.mark.parametrize(
    "path",
    [(), *(path for path in PATHS if message_below(path[-1]) and name_of(path) not in REFUSED)],
    ids=lambda path: name_of(path) if path else "",
)
async def test_unknown_fields_are_refused(ranker: RunningRanker, path: Path_) -> None:
    """A field number that this version lacks is refused wherever it stands, not dropped."""
    request = request_of(ranker.release)
    add_unknown_field(message_at(request, path))
    failure = await refusal(ranker, request)
    assert failure is not None
    assert failure.is_not_supported, failure


async def test_the_list_of_models_takes_nothing(ranker: RunningRanker) -> None:
    """ListModels has no fields; an unknown one is refused."""
    request = ranking_pb2.ListModelsRequest()
    assert await refusal(ranker, request, LIST_MODELS) is None
    add_unknown_field(request)
    failure = await refusal(ranker, request, LIST_MODELS)
    assert failure is not None
    assert failure.is_not_supported, failure


@pytest.mark.parametrize(
    "method", ["rangefinder.v1.RankingService/Divine", "rangefinder.v1.RecommendationService/Retrieve"]
)
async def test_rpcs_of_others_are_refused(ranker: RunningRanker, method: str) -> None:
    """A ranker retrieves nothing, and says so with a reason."""
    failure = await failure_of(answers_to_bytes(ranker.channel, method, b""))
    assert failure.is_not_supported, failure
