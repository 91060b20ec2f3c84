"""Recommendations: equal to a plain Python oracle of the whole pipeline; exclusions always obeyed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rangefinder import Recommended
from tests.kit.recommending import Recommending, recommending
from tests.kit.scripted_ranker import ScriptedRanker, rightly, score_of, scripted_ranker
from tests.kit.taste_oracle import QUOTAS, Expected, expected
from tests.kit.tasted_release import MODEL, VERSION, TastedRelease, build_tasted_release

UNRANKED = {"rank": "0"}


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
    async with (
        scripted_ranker() as ranker,
        recommending(release, folder, [ranker.address]) as served,
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
