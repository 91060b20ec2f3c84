"""Recommendations with the real ranking service, started by `up`: ranked, unharmed by its faults."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from rangefinder import Client
from rangefinder.release import RankerDescription, read_manifest
from tests.kit.processes import Cluster, running_cluster
from tests.kit.ranked_world import trained
from tests.kit.recommend_flow import DEADLINE_S, steady_flow
from tests.kit.taste_oracle import expected
from tests.kit.tasted_release import TastedRelease, build_tasted_release
from tests.kit.waiting import until

# The supervisor waits 2 s, the ranker takes two to load; a probe comes up to 5 s after that.
BACK_S_MAX = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A cluster with everything that `up` starts."""

    release: TastedRelease
    cluster: Cluster
    client: Client


def save_ranker(root: Path) -> RankerDescription:
    ranker = trained().ranker
    assert ranker is not None
    return ranker.save(root)


@pytest.fixture(scope="module", params=["integer", "text"])
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """With integer ids and with text ids."""
    folder = tmp_path_factory.mktemp(f"ranker-{request.param}")
    release = await asyncio.to_thread(
        build_tasted_release, folder, request.param, save_ranker=save_ranker
    )
    async with (
        running_cluster(release.path, folder / "cluster") as cluster,
        Client(cluster.address, deadline_s=10.0) as client,
    ):
        yield World(release=release, cluster=cluster, client=client)
    for name in ("router-0", "ranker-0"):
        assert "Traceback" not in cluster.output(name)


async def test_the_ranker_of_the_release_ranks(world: World) -> None:
    """Every answer is ranked by the model that the release names; candidates are the oracle's, in the
    ranker's order; its features are given where asked for."""
    release, ranker = world.release, read_manifest(world.release.path).ranker
    assert ranker is not None
    for user in range(10):
        wanted = expected(
            release,
            embedding=release.embeddings[user],
            seeds=release.histories[user],
            excluded=release.histories[user],
            count=500,
        )
        answer = await world.client.recommend(release.users[user], exclude_seen=True, explain=True)
        assert (answer.ranker_model, answer.ranker_model_version) == (ranker.model, ranker.version)
        assert answer.is_ranked.all()
        assert set(release.rows_of(answer.ids)) <= set(wanted.rows)
        assert (np.diff(answer.scores) <= 0).all()
        assert (answer.certificate.degradations, answer.certificate.coverage) == ((), 1.0)
        for place, row in enumerate(release.rows_of(answer.ids)):
            explanation = answer.explanations[place]
            assert {*explanation.source_scores} == {*wanted.sources_of(row)}
            assert explanation.features
            assert explanation.head_scores


async def test_a_score_does_not_depend_on_how_many_are_wanted(world: World) -> None:
    """The first items of a long answer are those of a short one, with the same scores."""
    user = world.release.users[8]
    long = await world.client.recommend(user, 200)
    short = await world.client.recommend(user, 7)
    assert [*long.ids][:7] == [*short.ids]
    assert long.scores[:7].tolist() == short.scores.tolist()


async def test_a_frozen_and_then_killed_ranker_fails_no_request(world: World) -> None:
    """Under load the ranker is frozen, thawed and killed: no request fails or is late; answers are in
    retrieval order meanwhile, and ranked again after the thaw and after the supervisor's restart."""
    async with steady_flow(world.client, world.release) as flow:
        await flow.until_ranked(within_s=10)
        world.cluster.signal("ranker-0", signal.SIGSTOP)
        await flow.until_unranked(within_s=10)
        seen, began_s = len(flow.took_s), time.monotonic()
        await until(lambda: len(flow.took_s) > seen + 60, within_s=BACK_S_MAX, what="more answers")
        assert time.monotonic() - began_s < BACK_S_MAX
        quick_s = flow.took_s[-20:]
        world.cluster.signal("ranker-0", signal.SIGCONT)
        await flow.until_ranked(within_s=BACK_S_MAX)
        world.cluster.signal("ranker-0", signal.SIGKILL)
        await flow.until_unranked(within_s=10)
        await flow.until_ranked(within_s=BACK_S_MAX)

    assert flow.failed == []
    assert max(flow.took_s) < DEADLINE_S
    assert median(quick_s) < DEADLINE_S / 4
    stages = {each.stage for answer in flow.answers for each in answer.certificate.degradations}
    assert stages == {"ranking"}
    assert {answer.certificate.coverage for answer in flow.answers} == {1.0}
