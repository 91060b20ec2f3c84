"""The ranking service as a process: what it answers, what it refuses, how it lives and ends."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct

from rangefinder.deadline import Deadline
from rangefinder.edge.readiness import ReadinessProbe
from rangefinder.keys import IdKind
from rangefinder.v1.ranking_pb2 import FloatColumn, ListModelsRequest, RankRequest, RankResponse
from rangefinder.v1.types_pb2 import ItemIds, Vector
from ranker_service.card import MODEL, open_model
from ranker_service.features import CandidateColumns, feature_rows
from tests.kit.calls import Failure, answers_to_bytes, failure_of, outcome_of
from tests.kit.ranked_world import RankedRelease, item_keys, item_tables, write_ranked_release
from tests.kit.ranking import RANK, RunningRanker, events, request_of, running_ranker

DEADLINE_S = 10.0
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> RankedRelease:
    return write_ranked_release(tmp_path_factory.mktemp("ranked") / "release")


@pytest.fixture(scope="module")
async def ranker(
    release: RankedRelease, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningRanker]:
    async with running_ranker(release, tmp_path_factory.mktemp("ranker") / "process") as running:
        yield running


async def rank(ranker: RunningRanker, request: RankRequest) -> RankResponse:
    return await ranker.stub.Rank(request, timeout=DEADLINE_S)


def numbers_of(items: ItemIds) -> list[int]:
    return list(items.integers) or [int(text.removeprefix("item-")) for text in items.texts]


def expected_features(release: RankedRelease, request: RankRequest) -> dict[str, list[float]]:
    """By name, in the order that the candidates came: tables and scores put together anew."""
    card, tables = release.card, item_tables(release.kind)
    numbers = numbers_of(request.items)
    keys = item_keys(np.array(numbers, np.int64), release.kind).tolist()
    known = {key: row.tolist() for key, row in zip(tables.keys.tolist(), tables.features, strict=True)}
    rows = [known.get(key, [NAN, NAN]) for key in keys]
    scores = np.frombuffer(request.source_scores, "<f4").reshape(len(keys), -1)
    columns = CandidateColumns(
        sources=list(request.sources),
        source_scores=scores,
        item_feature_names=tables.feature_names,
        item_features=np.array(rows, np.float32),
    )
    values = feature_rows(columns, card.feature_names, card.defaults).values
    return dict(zip(card.feature_names, values.T.tolist(), strict=True))


@pytest.mark.parametrize("kind", [IdKind.INTEGER, IdKind.ORDERED, IdKind.TEXT])
async def test_answers_are_what_the_model_says_of_the_features(kind: IdKind, tmp_path: Path) -> None:
    """Every id comes back once, best first; scores, heads and features are those of each candidate."""
    own = write_ranked_release(tmp_path / "release", kind)
    card, model = open_model(own.path, own.manifest)
    async with running_ranker(own, tmp_path / "process") as running:
        request = request_of(own, explain=True)
        answer = await rank(running, request)
    features = expected_features(own, request)
    rows = np.array([features[name] for name in card.feature_names], np.float32).T
    scores = model.score(np.ascontiguousarray(rows), Deadline(1.0, lambda: 0.0))[:, 0]
    order = np.argsort(-scores, kind="stable").tolist()
    came = numbers_of(request.items)
    assert [came[place] for place in order] == numbers_of(answer.items)
    assert scores[order].tolist() == list(answer.scores)
    assert {"relevance"} == set(answer.head_scores)
    assert list(answer.scores) == list(answer.head_scores["relevance"].values)
    assert {name: [values[place] for place in order] for name, values in features.items()} == {
        name: list(column.values) for name, column in answer.features.items()
    }
    assert (len(came), card.model, card.version) == (
        answer.scored_count,
        answer.model,
        answer.model_version,
    )
    assert ["features", "ranking"] == [timing.stage for timing in answer.stage_timings]


async def test_scores_do_not_depend_on_other_requests(ranker: RunningRanker) -> None:
    """Sixty requests at once get, bit for bit, what each gets alone."""
    requests = [request_of(ranker.release, count, count) for count in range(1, 301, 5)]
    alone = [await rank(ranker, request) for request in requests]
    together = await asyncio.gather(*(rank(ranker, request) for request in requests))
    for one, other in zip(alone, together, strict=True):
        assert one.items == other.items
        assert np.array(one.scores).tobytes() == np.array(other.scores).tobytes()


async def test_models_are_listed(ranker: RunningRanker) -> None:
    """The one of the release, as its card says."""
    card = ranker.release.card
    (model,) = (await ranker.stub.ListModels(ListModelsRequest(), timeout=DEADLINE_S)).models
    assert (card.model, card.version, True) == (model.name, model.version, model.active)
    assert card.feature_names == tuple(model.features)
    assert card.head_names == tuple(model.heads)


async def test_item_count_cuts_the_answer_alone(ranker: RunningRanker) -> None:
    """The best of all candidates are returned, and all were scored; 0, or too many, is all."""
    whole = await rank(ranker, request_of(ranker.release))
    assert 40 == len(whole.items.integers)
    for count in (1, 7, 40, 10_000):
        part = await rank(ranker, request_of(ranker.release, item_count=count, explain=True))
        assert whole.items.integers[:count] == part.items.integers
        assert whole.scores[:count] == part.scores
        assert len(part.scores) == len(part.features["retrieval.rank"].values)
        assert 40 == part.scored_count


async def test_what_is_known_of_items_comes_from_the_request_first(ranker: RunningRanker) -> None:
    """A value of the request wins over the release's; where it is NaN, the release's stays."""
    request = request_of(ranker.release, explain=True)
    own = expected_features(ranker.release, request)["item.popularity"]
    given = [0.25 if place % 2 else NAN for place in range(40)]
    request.item_features["popularity"].values.extend(given)
    answer = await rank(ranker, request)
    by_id = dict(zip(answer.items.integers, answer.features["item.popularity"].values, strict=True))
    expected = [0.25 if place % 2 else own[place] for place in range(40)]
    assert expected == [by_id[number] for number in request.items.integers]


async def test_unknown_items_take_defaults_and_are_counted(ranker: RunningRanker) -> None:
    """Items that the release does not know are ranked; every default is counted, by feature."""
    card = ranker.release.card
    scores = np.ones((3, 3), "<f4")
    scores[0] = np.nan
    request = request_of(
        ranker.release,
        3,
        items=ItemIds(integers=[10**9, 5, 299]),
        source_scores=scores.tobytes(),
        explain=True,
    )
    answer = await rank(ranker, request)
    assert 3 == answer.scored_count
    # 10^9 is unknown; 299 has no activity; the first was proposed by no source.
    expected = {"item.popularity": 1, "item.activity": 2}
    views = [name for name in card.feature_names if name.startswith(card.sources)]
    expected |= {name: 1 for name in views if not name.endswith(".share")}
    assert expected == dict(answer.defaulted_features)
    defaults = {feature.name: feature.default for feature in card.features}
    place = list(answer.items.integers).index(10**9)
    assert defaults["item.popularity"] == answer.features["item.popularity"].values[place]


async def test_sources_that_the_model_does_not_read_change_no_score(ranker: RunningRanker) -> None:
    """A pipeline may have sources that came after the model; one that is missing takes defaults."""
    request = request_of(ranker.release)
    before = await rank(ranker, request)
    scores = np.frombuffer(request.source_scores, "<f4").reshape(40, 3)
    wider = np.concatenate([scores, np.ones((40, 1), "<f4")], axis=1)
    more = request_of(
        ranker.release,
        sources=[*request.sources, "friends"],
        source_scores=wider.tobytes(),
    )
    assert before.scores == (await rank(ranker, more)).scores
    fewer = request_of(
        ranker.release, sources=request.sources[:1], source_scores=scores[:, :1].tobytes()
    )
    answer = await rank(ranker, fewer)
    assert 40 == answer.scored_count
    assert 40 == answer.defaulted_features["item_to_item.share"]


async def test_head_weights_scale_the_score(ranker: RunningRanker) -> None:
    """The final score is the weighted sum of the heads; a negative weight turns the order round."""
    plain = await rank(ranker, request_of(ranker.release))
    turned = await rank(ranker, request_of(ranker.release, head_weights={"relevance": -2.0}))
    assert sorted(-2 * score for score in plain.scores) == sorted(turned.scores)
    heads = zip(turned.items.integers, turned.head_scores["relevance"].values, strict=True)
    assert dict(zip(plain.items.integers, plain.scores, strict=True)) == dict(heads)


async def test_no_candidates_are_an_empty_answer(ranker: RunningRanker) -> None:
    """Nothing to rank is no error."""
    answer = await rank(ranker, request_of(ranker.release, 0))
    assert (0, 0) == (answer.scored_count, len(answer.scores))


async def test_the_most_that_may_be_asked_is_answered(ranker: RunningRanker) -> None:
    """Ten thousand candidates, most of them unknown, explained."""
    request = request_of(
        ranker.release,
        items=ItemIds(integers=range(10_000)),
        source_scores=np.ones((10_000, 3), "<f4").tobytes(),
        explain=True,
    )
    answer = await rank(ranker, request)
    assert 10_000 == answer.scored_count
    assert list(range(10_000)) == sorted(answer.items.integers)


def scores_with(value: float) -> bytes:
    scores = np.ones((40, 3), "<f4")
    scores[7, 1] = value
    return scores.tobytes()


# Fields of a request that is else answered, and the field that is at fault.
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "other id kind": ({"items": ItemIds(texts=["a"])}, "items"),
    "both id kinds": ({"items": ItemIds(integers=[1], texts=["a"])}, "items"),
    "repeated id": ({"items": ItemIds(integers=[*range(39), 0])}, "items"),
    "too many": (
        {
            "items": ItemIds(integers=range(10_001)),
            "source_scores": bytes(4 * 3 * 10_001),
        },
        "items",
    ),
    "scores of fewer": ({"items": ItemIds(integers=range(39))}, "source_scores"),
    "half a score": ({"source_scores": bytes(4 * 3 * 40 - 1)}, "source_scores"),
    "no scores": ({"source_scores": b""}, "source_scores"),
    "scores without sources": ({"sources": []}, "source_scores"),
    "infinite score": ({"source_scores": scores_with(INFINITY)}, "source_scores"),
    "minus infinity": ({"source_scores": scores_with(-INFINITY)}, "source_scores"),
    "repeated source": ({"sources": ["index", "index", "popularity"]}, "sources"),
    "too many sources": ({"sources": [str(number) for number in range(65)]}, "sources"),
    "short column": ({"item_features": {"popularity": FloatColumn(values=[1.0])}}, "item_features"),
    "infinite column": (
        {"item_features": {"popularity": FloatColumn(values=[INFINITY] * 40)}},
        "item_features",
    ),
    "negative count": ({"item_count": -1}, "item_count"),
    "count out of range": ({"item_count": 10_001}, "item_count"),
    "long request id": ({"request_id": "x" * 129}, "request_id"),
    "other release": ({"release": "another"}, "release"),
    "NaN weight": ({"head_weights": {"relevance": NAN}}, "head_weights"),
    "huge weight": ({"head_weights": {"relevance": 1001.0}}, "head_weights"),
}


@pytest.mark.parametrize("fault", BAD)
async def test_bad_requests_are_refused(ranker: RunningRanker, fault: str) -> None:
    """Each with INVALID_REQUEST and the field that is at fault."""
    fields, field = BAD[fault]
    failure = await failure_of(rank(ranker, request_of(ranker.release, **fields)))
    assert ("INVALID_ARGUMENT", "INVALID_REQUEST", (field,)) == (
        failure.code,
        failure.reason,
        failure.fields,
    )
    assert failure.message.startswith(f"{field}: ")


async def test_bytes_that_are_no_request_are_refused(ranker: RunningRanker) -> None:
    """As on every service."""
    failure = await failure_of(answers_to_bytes(ranker.channel, RANK, b"\xff\xff"))
    assert ("INVALID_ARGUMENT", "INVALID_REQUEST") == (failure.code, failure.reason)


@pytest.mark.parametrize("text", ["", "x" * 257])
async def test_bad_text_ids_are_refused(text: str, tmp_path: Path) -> None:
    """An id is 1 to 256 bytes."""
    own = write_ranked_release(tmp_path / "release", IdKind.TEXT)
    async with running_ranker(own, tmp_path / "process") as running:
        bad = request_of(own, 1, items=ItemIds(texts=[text]))
        failure = await failure_of(rank(running, bad))
    assert ("INVALID_REQUEST", ("items",)) == (failure.reason, failure.fields)


async def test_the_model_named_is_the_one_that_ranks(ranker: RunningRanker) -> None:
    """Its name, its version or its release may be given; another is UNKNOWN_MODEL."""
    card = ranker.release.card
    named: dict[str, Any] = {"model": card.model, "model_version": card.version, "release": "release"}
    assert 40 == (await rank(ranker, request_of(ranker.release, **named))).scored_count
    others: list[dict[str, Any]] = [
        {"model": "x"},
        {"model_version": "x"},
        {**named, "model_version": "x"},
    ]
    for other in others:
        failure = await failure_of(rank(ranker, request_of(ranker.release, **other)))
        assert ("NOT_FOUND", "UNKNOWN_MODEL") == (failure.code, failure.reason)


USER = Struct()
USER.update({"age": 40})

# What the card does not name would change no score.
NOT_READ: dict[str, dict[str, Any]] = {
    "user_id": {"user_id": "7"},
    "user_embedding": {"user_embedding": Vector(values=[1.0])},
    "user_features": {"user_features": USER},
    "context": {"context": USER},
    "item feature": {"item_features": {"price": FloatColumn(values=[1.0] * 40)}},
    "head": {"head_weights": {"clicks": 1.0}},
}


@pytest.mark.parametrize("name", NOT_READ)
async def test_what_the_model_does_not_read_is_refused(ranker: RunningRanker, name: str) -> None:
    """Never ignored: NOT_SUPPORTED."""
    failure = await failure_of(rank(ranker, request_of(ranker.release, **NOT_READ[name])))
    assert failure.is_not_supported, failure


async def test_a_deadline_that_is_spent_is_said_so(ranker: RunningRanker) -> None:
    """A caller without time gets DEADLINE_SPENT or gRPC's own word, and the next one an answer."""
    failure = await failure_of(ranker.stub.Rank(request_of(ranker.release), timeout=0.000_001))
    assert "DEADLINE_EXCEEDED" == failure.code
    assert 40 == (await rank(ranker, request_of(ranker.release))).scored_count


async def test_calls_beyond_the_bound_are_refused_at_once(
    release: RankedRelease, tmp_path: Path
) -> None:
    """With one place, of many calls at once some are OVERLOADED; the others are answered."""
    settings = {"requests_in_flight_max": 1, "scoring_threads": 1}
    async with running_ranker(release, tmp_path / "process", **settings) as running:
        request = request_of(release, 300)
        outcomes = await asyncio.gather(
            *(rank(running, request) for _ in range(50)), return_exceptions=True
        )
        failures = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
        assert {grpc.StatusCode.RESOURCE_EXHAUSTED} == {each.code() for each in failures}
        assert len(failures) < 50
        assert 300 == (await rank(running, request)).scored_count


async def test_a_ranker_drains_on_sigterm(release: RankedRelease, tmp_path: Path) -> None:
    """Each call at that moment is answered whole, or refused with a reason; the process ends well."""
    async with running_ranker(release, tmp_path / "process") as running:
        request = request_of(
            release,
            items=ItemIds(integers=range(10_000)),
            source_scores=np.ones((10_000, 3), "<f4").tobytes(),
        )
        await running.channel.channel_ready()
        calls = [
            asyncio.create_task(outcome_of(rank(running, request)), name=f"rank-{number}")
            for number in range(8)
        ]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            outcomes = await asyncio.gather(*calls)
            assert 0 == await running.process.wait()
        answers = [each for each in outcomes if isinstance(each, RankResponse)]
        assert len(done) <= len(answers)
        assert {10_000} == {answer.scored_count for answer in answers}
        failures = [each for each in outcomes if isinstance(each, Failure)]
        assert all(("UNAVAILABLE", "NOT_READY") == (each.code, each.reason) for each in failures)
        assert "ranker_draining" in [event["event"] for event in events(running.output)]
        async with ReadinessProbe(running.address) as probe:
            assert not await probe.is_ready(1.0)


async def test_a_damaged_model_ends_the_process_for_good(tmp_path: Path) -> None:
    """Exit code 65, and one line that names the file: starting again would not mend it."""
    own = write_ranked_release(tmp_path / "release")
    content = bytearray((own.path / MODEL).read_bytes())
    content[100] ^= 1
    (own.path / MODEL).write_bytes(content)
    with pytest.raises(AssertionError):
        async with running_ranker(own, tmp_path / "process"):
            pass
    output = (tmp_path / "process" / "output.txt").read_text()
    assert "model.onnx: checksum mismatch" in output
    assert "Traceback" not in output
