"""Recommendations: equal to a plain Python oracle of the whole pipeline; exclusions always obeyed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rangefinder import Recommended
from rangefinder.edge.wire import ids_of
from rangefinder.errors import InvalidRequest, UnknownRelease, UnknownUser
from router.pipeline import Bounds, IndexSource, ItemToItemSource, Pipeline, PopularitySource
from tests.kit.recommending import Recommending, recommending
from tests.kit.scripted_ranker import MODEL, VERSION, ScriptedRanker, rightly, score_of, scripted_ranker
from tests.kit.taste_oracle import QUOTAS, Expected, expected
from tests.kit.tasted_release import TastedRelease, build_tasted_release

UNRANKED = {"rank": "0"}
NOT_POPULAR = {**UNRANKED, "popularity.quota": "0"}


# Few candidates, and parameters of which one may be changed.
NARROW = Pipeline(
    index=IndexSource(quota=30),
    item_to_item=ItemToItemSource(quota=10, seed_count=2),
    popularity=PopularitySource(quota=5),
    candidate_count=40,
    parameters={"index.quota": Bounds(minimum=25, maximum=35)},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A cluster, and the ranker that it asks."""

    served: Recommending
    ranker: ScriptedRanker

    @property
    def release(self) -> TastedRelease:
        return self.served.release

    async def recommend(self, *arguments: Any, **options: Any) -> Recommended:
        return await self.served.client.recommend(*arguments, **options)


@pytest.fixture(scope="module", params=["integer", "text"])
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """With integer ids and with text ids."""
    folder = tmp_path_factory.mktemp(f"recommend-{request.param}")
    release = await asyncio.to_thread(build_tasted_release, folder, request.param)
    pipelines = {"narrow": NARROW}
    async with (
        scripted_ranker() as ranker,
        recommending(release, folder, [ranker.address], pipelines=pipelines) as served,
    ):
        yield World(served=served, ranker=ranker)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A user's request, and what the oracle says of it."""

    user: int
    options: dict[str, Any]
    excluded: set[int]
    wanted: Expected


def random_case(release: TastedRelease, seed: int) -> Case:
    """One user with a mixture of everything that a request may say."""
    random = np.random.default_rng(seed)
    user = int(random.integers(len(release.users)))
    item_count = int(random.choice([1, 20, 130]))
    candidate_count = int(random.choice([0, item_count, 700]))
    every = range(len(release.ids))
    recent = random.choice(every, int(random.choice([0, 5, 60])), replace=True).tolist()
    left_out = random.choice(every, int(random.choice([0, 3, 400])), replace=False).tolist()
    exclude_seen = bool(random.integers(2))
    given = random.standard_normal(8).astype(np.float32) if random.integers(4) == 0 else None
    excluded = {*left_out, *(release.histories[user] if exclude_seen else [])}
    is_recent_known = any(row in release.neighbours for row in recent)
    wanted = expected(
        release,
        embedding=release.embeddings[user] if given is None else given,
        seeds=recent if recent else release.histories[user],
        excluded=excluded,
        count=candidate_count or max(500, item_count),
        quotas={name: max(quota, item_count) for name, quota in QUOTAS.items()},
    )
    assert is_recent_known or len(recent) < 60
    options = {
        "item_count": item_count,
        "candidate_count": candidate_count,
        "user_embedding": given,
        "recent_ids": [release.ids[row] for row in recent],
        "excluded_ids": [release.ids[row] for row in left_out],
        "exclude_seen": exclude_seen,
    }
    return Case(user=user, options=options, excluded=excluded, wanted=wanted)


@pytest.mark.parametrize("seed", range(24))
async def test_recommendations_are_those_of_the_oracle(world: World, seed: int) -> None:
    """For any user and any mixture of recent, excluded and seen items, with and without a ranker:
    items, order, scores and sources are the oracle's; the certificate is whole and says no more."""
    world.ranker.script = rightly
    release, case = world.release, random_case(world.release, seed)
    user, count = release.users[case.user], case.options["item_count"]

    plain = await world.recommend(user, **case.options, parameters=UNRANKED)
    ranked = await world.recommend(user, **case.options)

    wanted = case.wanted
    assert release.rows_of(plain.ids) == wanted.rows[:count]
    expected_scores = [wanted.scores[row] for row in wanted.rows[:count]]
    assert plain.scores.tolist() == pytest.approx(expected_scores, rel=1e-5)
    assert not plain.is_ranked.any()
    right = {row: score_of(release.ids[row], release.id_kind) for row in wanted.rows}
    order = sorted(wanted.rows, key=lambda row: -right[row])[:count]
    assert release.rows_of(ranked.ids) == order
    assert ranked.scores.tolist() == [right[row] for row in order]
    assert ranked.is_ranked.all()
    assert (ranked.ranker_model, ranked.ranker_model_version) == (MODEL, VERSION)
    assert (plain.ranker_model, plain.ranker_model_version) == ("", "")
    for answer in (plain, ranked):
        rows = release.rows_of(answer.ids)
        assert answer.sources == [wanted.sources_of(row) for row in rows]
        assert not set(rows) & case.excluded
        certificate = answer.certificate
        assert (certificate.coverage, certificate.degradations) == (1.0, ())
        assert certificate.item_count == len(release.ids)


def popular_rows(release: TastedRelease, count: int) -> list[int]:
    return [row for row, _ in release.popular][:count]


@pytest.mark.parametrize("user", ["", "nobody", "0" * 256])
async def test_who_is_unknown_gets_popular_items(world: World, user: str) -> None:
    """Without embedding or known recent items the popular items come, as many as are wanted, in
    their own order; the certificate says that it is a fallback, and that nothing was missed."""
    release = world.release
    newcomer = release.ids[0]  # In no table.

    plain = await world.recommend(user, parameters=UNRANKED)
    many = await world.recommend(user, 130, recent_ids=[newcomer], parameters=UNRANKED)
    whole = await world.recommend(user, minimum_coverage=1.0)

    assert release.rows_of(plain.ids) == popular_rows(release, 20)
    assert release.rows_of(many.ids) == popular_rows(release, 130)
    assert [*whole.ids] == [*plain.ids]
    for answer in (plain, many, whole):
        assert not answer.is_ranked.any()
        assert {*answer.sources} == {("popularity",)}
        taken = answer.certificate.degradations
        assert [(each.stage, each.reason) for each in taken] == [("fallback", "UNKNOWN_USER")]
        assert (user or "no user") in taken[0].detail
        assert answer.certificate.coverage == 1.0
        assert answer.certificate.estimated_recall is None


async def test_an_unknown_user_is_served_by_what_the_request_brings(world: World) -> None:
    """Recent items make up for an unknown user, and it is said that the index was not searched; an
    embedding makes up for all of it. Somebody without a name is not said to be unknown."""
    release = world.release
    recent = [row for row in release.neighbours if len(release.neighbours[row]) > 6][:3]
    ids = [release.ids[row] for row in recent]
    wanted = expected(release, embedding=None, seeds=recent, excluded=(), count=500)

    unknown = await world.recommend("nobody", recent_ids=ids, parameters=UNRANKED)
    unnamed = await world.recommend(recent_ids=ids, parameters=UNRANKED)
    embedded = await world.recommend("nobody", user_embedding=release.embeddings[0])

    assert release.rows_of(unknown.ids) == release.rows_of(unnamed.ids) == wanted.rows[:20]
    taken = [(each.stage, each.reason) for each in unknown.certificate.degradations]
    assert taken == [("source:index", "UNKNOWN_USER")]
    assert unnamed.certificate.degradations == embedded.certificate.degradations == ()
    assert {answer.certificate.coverage for answer in (unknown, unnamed, embedded)} == {1.0}


async def test_recent_items_that_are_new_leave_the_history(world: World) -> None:
    """Where the tables know none of the recent items, the user's history is gone by, as without."""
    release = world.release
    newcomers = release.ids[:50:10]
    user = next(place for place, each in enumerate(release.histories) if len(each) > 10)
    without = await world.recommend(release.users[user], parameters=UNRANKED)
    recent = await world.recommend(release.users[user], recent_ids=newcomers, parameters=UNRANKED)
    assert [*recent.ids] == [*without.ids]
    assert any("item_to_item" in each for each in recent.sources)


async def test_where_nothing_can_be_proposed_the_user_is_unknown(world: World) -> None:
    """NOT_FOUND/UNKNOWN_USER only where there are no popular items to fall back to."""
    with pytest.raises(UnknownUser, match="'nobody' is not in the release"):
        await world.recommend("nobody", parameters=NOT_POPULAR)
    with pytest.raises(UnknownUser, match="no user was named"):
        await world.recommend(parameters=NOT_POPULAR)


async def test_a_pipeline_and_its_parameters_are_obeyed(world: World) -> None:
    """A named pipeline has its own quotas and seeds, of which a request changes those that it
    declares; other pipelines, parameters and values are refused."""
    release = world.release
    user = next(place for place, each in enumerate(release.histories) if len(each) > 10)
    for quota, parameters in ((30, {}), (26, {"index.quota": "26"})):
        wanted = expected(
            release,
            embedding=release.embeddings[user],
            seeds=release.histories[user][:2],
            excluded=(),
            count=40,
            quotas={"index": quota, "item_to_item": 10, "popularity": 5},
        )
        answer = await world.recommend(
            release.users[user], 1, pipeline="narrow", parameters=parameters, candidate_count=40
        )
        asked = world.ranker.asked[-1]
        assert release.rows_of(ids_of(asked.items)) == wanted.rows
        assert len(answer.ids) == 1
    for options, field in (
        ({"pipeline": "wide"}, "pipeline"),
        ({"pipeline": "narrow", "parameters": {"index.quota": "36"}}, "parameters"),
        ({"pipeline": "narrow", "parameters": {"rank": "0"}}, "parameters"),
        ({"parameters": {"index.quota": "many"}}, "parameters"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await world.recommend(release.users[user], **options)
        assert refused.value.violation.field == field


async def test_attributes_come_where_asked_for(world: World) -> None:
    """Items have those of the attributes asked for that they have, and no others."""
    release = world.release
    user = release.users[3]

    with_both = await world.recommend(user, item_attributes=["title", "year", "colour"])
    with_one = await world.recommend(user, item_attributes=["year", "year"])
    without = await world.recommend(user)

    rows = release.rows_of(with_both.ids)
    titles = [{"title": f"title of {release.ids[row]}", "year": 1_900.0 + row} for row in rows]
    assert with_both.attributes == titles
    assert [each["year"] for each in with_one.attributes] == [each["year"] for each in titles]
    assert {len(each) for each in with_one.attributes} == {1}
    assert without.attributes == [{}] * 20
    assert [*with_both.ids] == [*with_one.ids] == [*without.ids]
    assert "features" in with_both.certificate.stage_ms


async def test_an_explanation_says_what_each_stage_thought(world: World) -> None:
    """Each source's score and rank of an item, and the ranker's scores and features; all of it only
    where asked for."""
    world.ranker.script = rightly
    release = world.release
    wanted = expected(
        release,
        embedding=release.embeddings[7],
        seeds=release.histories[7],
        excluded=(),
        count=500,
    )

    answer = await world.recommend(release.users[7], explain=True)
    plain = await world.recommend(release.users[7])

    for place, row in enumerate(release.rows_of(answer.ids)):
        explanation = answer.explanations[place]
        assert {*explanation.source_scores} == {*wanted.sources_of(row)}
        for source, part in explanation.source_scores.items():
            assert wanted.proposed[source][part.rank - 1] == (row, part.score)
        assert explanation.head_scores == {"main": answer.scores[place]}
        assert explanation.features == {"place": wanted.rows.index(row)}
    assert (plain.explanations, world.ranker.asked[-1].explain) == ([], False)


async def test_a_request_has_an_id(world: World) -> None:
    """The caller's is echoed and handed to the ranker; where there is none, one is made."""
    named = await world.recommend(world.release.users[0], request_id="r-17")
    assert (named.request_id, world.ranker.asked[-1].request_id) == ("r-17", "r-17")
    made = {(await world.recommend(world.release.users[0])).request_id for _ in range(5)}
    assert len(made) == 5
    assert all(made)


async def test_stages_are_timed(world: World) -> None:
    """The certificate has the time of each stage, by the names of the contract."""
    answer = await world.recommend(world.release.users[0])
    stages = answer.certificate.stage_ms
    assert [*stages] == ["embedding", "queue", "retrieval", "merge", "ranking"]
    assert min(stages.values()) >= 0
    assert stages["ranking"] > 0


async def test_the_release_named_answers(world: World) -> None:
    """Its name is accepted and stands in the certificate; another is refused."""
    name = world.release.name
    answer = await world.recommend(world.release.users[0], release=name)
    assert answer.certificate.release == name
    with pytest.raises(UnknownRelease):
        await world.recommend(world.release.users[0], release="other")
