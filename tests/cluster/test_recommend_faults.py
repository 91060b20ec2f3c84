"""Recommendations while rankers misbehave and nodes die: poorer answers that say so, never an error."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc
import numpy as np
import pytest

from rangefinder import Recommended
from rangefinder.errors import CoverageTooLow
from rangefinder.v1.ranking_pb2 import RankResponse
from router.health import EJECTION_S, FAILURE_COUNT_MAX
from router.pipeline import IndexSource, Pipeline
from tests.kit.recommend_flow import DEADLINE_S, steady_flow
from tests.kit.recommending import Recommending, recommending
from tests.kit.scripted_ranker import (
    Script,
    ScriptedRanker,
    changed,
    garbage,
    never,
    partly,
    refusing,
    rightly,
    scripted_ranker,
)
from tests.kit.taste_oracle import Expected, expected
from tests.kit.tasted_release import TastedRelease, build_tasted_release
from tests.kit.waiting import until, until_async

BACK_S_MAX = 20.0


@pytest.fixture(scope="module")
async def release(tmp_path_factory: pytest.TempPathFactory) -> TastedRelease:
    folder = tmp_path_factory.mktemp("faults")
    return await asyncio.to_thread(build_tasted_release, folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A cluster, and the two rankers that it asks."""

    served: Recommending
    rankers: tuple[ScriptedRanker, ScriptedRanker]

    def let_both(self, script: Script) -> None:
        for ranker in self.rankers:
            ranker.script = script

    async def until_ranked(self) -> None:
        """Wait until both rankers are asked again."""
        self.let_both(rightly)
        for ranker in self.rankers:
            before = len(ranker.asked)

            async def is_asked(ranker: ScriptedRanker = ranker, before: int = before) -> bool:
                answer = await self.served.client.recommend("0")
                return len(ranker.asked) > before and bool(answer.is_ranked.all())

            await until_async(is_asked, within_s=BACK_S_MAX, what="a ranker is taken back")


@pytest.fixture(scope="module")
async def world(
    release: TastedRelease, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    async with scripted_ranker() as one, scripted_ranker() as other:
        addresses = [one.address, other.address]
        folder = tmp_path_factory.mktemp("world")
        async with recommending(release, folder, addresses) as served:
            yield World(served=served, rankers=(one, other))


def wanted_of(release: TastedRelease, user: int, missed: frozenset[int] = frozenset()) -> Expected:
    return expected(
        release,
        embedding=release.embeddings[user],
        seeds=release.histories[user],
        excluded=(),
        count=500,
        missed=missed,
    )


def repeat_first(answer: RankResponse) -> None:
    answer.items.integers[1] = answer.items.integers[0]


def stranger(answer: RankResponse) -> None:
    answer.items.integers[3] = 10**15


def not_finite(value: float) -> Script:
    return changed(lambda answer: answer.scores.__setitem__(4, value))


# What a ranker does, and the reason that a certificate gives for it.
BAD: dict[str, tuple[Script, str]] = {
    "NaN among scored": (not_finite(np.nan), "INVALID_RANKING"),
    "infinity": (not_finite(np.inf), "INVALID_RANKING"),
    "unknown id": (changed(stranger), "INVALID_RANKING"),
    "an id twice": (changed(repeat_first), "INVALID_RANKING"),
    "one item less": (changed(lambda answer: answer.items.integers.pop()), "INVALID_RANKING"),
    "one score less": (changed(lambda answer: answer.scores.pop()), "INVALID_RANKING"),
    "one score more": (changed(lambda answer: answer.scores.append(0.5)), "INVALID_RANKING"),
    "nothing": (changed(lambda answer: answer.Clear()), "INVALID_RANKING"),
    "ids of the other kind": (
        changed(lambda answer: answer.items.CopyFrom(type(answer.items)(texts=["a"] * 20))),
        "INVALID_RANKING",
    ),
    "scored more than asked": (
        changed(lambda answer: setattr(answer, "scored_count", 501)),
        "INVALID_RANKING",
    ),
    "negative count": (
        changed(lambda answer: setattr(answer, "scored_count", -1)),
        "INVALID_RANKING",
    ),
    "worst first": (
        changed(lambda answer: answer.scores.__setitem__(0, -1.0)),
        "INVALID_RANKING",
    ),
    "another model": (
        changed(lambda answer: setattr(answer, "model_version", "4")),
        "INVALID_RANKING",
    ),
    "garbage": (garbage, "INVALID_RANKING"),
    "unknown model": (refusing(grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL"), "UNKNOWN_MODEL"),
    "overloaded": (refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"), "OVERLOADED"),
    "nothing scored in time": (
        refusing(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_SPENT"),
        "DEADLINE_SPENT",
    ),
    "not ready": (refusing(grpc.StatusCode.UNAVAILABLE, "NOT_READY"), "RANKER_UNAVAILABLE"),
    "a proxy's word": (refusing(grpc.StatusCode.UNAVAILABLE), "RANKER_UNAVAILABLE"),
    "a stranger's word": (refusing(grpc.StatusCode.PERMISSION_DENIED), "UNEXPECTED_STATUS"),
    "a bug": (refusing(grpc.StatusCode.INTERNAL, "INTERNAL"), "INTERNAL"),
    "silent": (never, "DEADLINE_SPENT"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_ranker_costs_the_ranking_alone(world: World, name: str) -> None:
    """Whatever rankers do, the answer is the oracle's in retrieval order, within its deadline, and its
    certificate says why; once they behave they are taken back."""
    script, reason = BAD[name]
    await world.until_ranked()
    world.let_both(script)
    release = world.served.release

    began_s = time.monotonic()
    answer = await world.served.client.recommend(release.users[5], deadline_s=DEADLINE_S)

    assert time.monotonic() - began_s < DEADLINE_S
    assert release.rows_of(answer.ids) == wanted_of(release, 5).rows[:20]
    assert not answer.is_ranked.any()
    assert (answer.ranker_model, answer.ranker_model_version) == ("", "")
    taken = answer.certificate.degradations
    assert [(each.stage, each.reason) for each in taken] == [("ranking", reason)]
    assert answer.certificate.coverage == 1.0


@pytest.mark.parametrize("scored", [0, 1, 7, 300])
async def test_what_was_ranked_in_time_comes_first(world: World, scored: int) -> None:
    """Where only some candidates were scored, those come first, best first, then the others in
    retrieval order with their retrieval scores; the certificate says how many were scored."""
    await world.until_ranked()
    world.let_both(partly(scored))
    release = world.served.release
    wanted = wanted_of(release, 9)

    answer = await world.served.client.recommend(release.users[9], 20)

    rows, ranked_count = release.rows_of(answer.ids), min(scored, 20)
    assert answer.is_ranked.tolist() == [True] * ranked_count + [False] * (20 - ranked_count)
    assert set(rows[:ranked_count]) <= set(wanted.rows[:scored])
    assert (np.diff(answer.scores[:ranked_count]) <= 0).all()
    others = [row for row in wanted.rows if row not in rows[:ranked_count]]
    assert rows[ranked_count:] == others[: 20 - ranked_count]
    merged = [wanted.scores[row] for row in rows[ranked_count:]]
    assert answer.scores[ranked_count:].tolist() == pytest.approx(merged, rel=1e-5)
    (taken,) = answer.certificate.degradations
    assert (taken.stage, taken.reason) == ("ranking", "DEADLINE_SPENT")
    assert taken.detail.startswith(f"{scored} of 500 candidates were ranked")
    assert answer.ranker_model == ("scripted" if scored else "")


async def test_a_ranker_that_refuses_costs_nothing_where_another_ranks(world: World) -> None:
    """With one of two rankers refusing at once, every answer is ranked all the same."""
    await world.until_ranked()
    one, other = world.rankers
    one.script = refusing(grpc.StatusCode.UNAVAILABLE)
    before = len(one.asked)
    answers = [await world.served.client.recommend("0") for _ in range(30)]
    assert all(answer.is_ranked.all() for answer in answers)
    assert {answer.certificate.degradations for answer in answers} == {()}
    assert FAILURE_COUNT_MAX <= len(one.asked) - before <= FAILURE_COUNT_MAX + 1
    assert other.script is rightly


async def test_silent_rankers_are_left_out_and_cost_no_time(world: World) -> None:
    """After a few late answers silent rankers are no longer waited for; they are probed, and taken
    back once they answer."""
    await world.until_ranked()
    world.let_both(never)
    client = world.served.client

    async def is_quick() -> bool:
        answer = await client.recommend("0", deadline_s=DEADLINE_S)
        reasons = {each.reason for each in answer.certificate.degradations}
        return reasons == {"RANKER_UNAVAILABLE"}

    await until_async(is_quick, within_s=10, what="no ranker is waited for")
    probed = sum(ranker.probed for ranker in world.rankers)
    took_s = []
    for _ in range(50):
        began_s = time.monotonic()
        answer = await client.recommend("0", deadline_s=DEADLINE_S)
        took_s.append(time.monotonic() - began_s)
        assert not answer.is_ranked.any()
    assert median(took_s) < DEADLINE_S / 4
    await until(
        lambda: sum(ranker.probed for ranker in world.rankers) > probed,
        within_s=5 * EJECTION_S,
        what="a ranker is probed",
    )
    await world.until_ranked()


@asynccontextmanager
async def ranker_process() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A ranker that may be killed and frozen, and its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.kit.scripted_ranker"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        yield process, f"127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_frozen_node_costs_its_ranges_alone(world: World) -> None:
    """With one of two nodes frozen answers come within their deadline, ranked, and say what was not
    searched; sources that need no node are whole."""
    await world.until_ranked()
    served, release = world.served, world.served.release
    shards = (await served.client.cluster_map()).shards
    away = next(shard for shard in shards if shard.replicas[0].node == "node-1")
    start, end = away.key_start, away.key_end or 2**64
    missed = frozenset(row for row, key in enumerate(release.keys) if start <= key < end)
    served.cluster.signal("node-1", signal.SIGSTOP)
    try:
        async with steady_flow(served.client, release) as flow:
            await until(lambda: len(flow.answers) > 60, within_s=20, what="answers come")
        late = await served.client.recommend(release.users[3], parameters={"rank": "0"})
    finally:
        served.cluster.signal("node-1", signal.SIGCONT)
    assert flow.failed == []
    assert max(flow.took_s) < DEADLINE_S
    assert all(each.is_ranked.all() for each in flow.answers)
    assert release.rows_of(late.ids) == wanted_of(release, 3, missed).rows[:20]
    assert late.certificate.coverage == 1 - len(missed) / len(release.keys)
    assert late.certificate.degradations == ()

    async def is_whole() -> bool:
        return (await served.client.recommend("0")).certificate.coverage == 1

    await until_async(is_whole, within_s=BACK_S_MAX, what="the node is taken back")


@contextmanager
def stopped(process: asyncio.subprocess.Process) -> Iterator[None]:
    """A supervisor that starts nothing again until the block ends."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def degraded(answer: Recommended) -> set[str]:
    return {each.stage for each in answer.certificate.degradations}


async def test_a_frozen_and_then_killed_ranker_fails_no_request(
    release: TastedRelease, tmp_path: Path
) -> None:
    """Under load the only ranker is frozen, thawed and killed: no request fails or exceeds its
    deadline; answers are in retrieval order meanwhile, and ranked again after the thaw."""
    async with (
        ranker_process() as (process, address),
        recommending(release, tmp_path, [address]) as served,
        steady_flow(served.client, release) as flow,
    ):
        await flow.until_ranked(within_s=BACK_S_MAX)
        process.send_signal(signal.SIGSTOP)
        await flow.until_unranked(within_s=BACK_S_MAX)
        seen = len(flow.took_s)
        await until(lambda: len(flow.took_s) > seen + 60, within_s=BACK_S_MAX, what="more answers")
        quick_s = flow.took_s[-20:]
        process.send_signal(signal.SIGCONT)
        await flow.until_ranked(within_s=BACK_S_MAX)
        process.kill()
        await flow.until_unranked(within_s=BACK_S_MAX)

    assert flow.failed == []
    assert max(flow.took_s) < DEADLINE_S
    assert median(quick_s) < DEADLINE_S / 4
    assert set().union(*map(degraded, flow.answers)) == {"ranking"}
    assert {answer.certificate.coverage for answer in flow.answers} == {1.0}


async def test_a_lost_node_costs_its_ranges_and_no_request(
    release: TastedRelease, tmp_path: Path
) -> None:
    """A node is killed under load: no request fails, coverage is that of what was searched, answers
    are the oracle's without the lost range; whoever demands more coverage is refused. With no node,
    the other sources answer, and it is said."""
    pipelines = {"strict": Pipeline(index=IndexSource(required=True))}
    async with recommending(release, tmp_path, [], pipelines=pipelines) as served:
        shards = (await served.client.cluster_map()).shards
        lost = next(shard for shard in shards if shard.replicas[0].node == "node-1")
        start, end = lost.key_start, lost.key_end or 2**64
        missed = frozenset(row for row, key in enumerate(release.keys) if start <= key < end)
        share = 1 - len(missed) / len(release.keys)
        # Whoever starts it again is stopped before it does.
        with stopped(served.cluster.supervisor):
            async with steady_flow(served.client, release) as flow:
                await until(lambda: len(flow.answers) > 20, within_s=10, what="answers come")
                served.cluster.signal("node-1", signal.SIGKILL)
                await until(
                    lambda: flow.answers[-1].certificate.coverage < 1, within_s=5, what="a part is lost"
                )
                seen = len(flow.answers)
                await until(lambda: len(flow.answers) > seen + 20, within_s=10, what="more answers")
            assert flow.failed == []
            assert {each.certificate.coverage for each in flow.answers} == {1.0, share}

            answer = await served.client.recommend(
                release.users[4], parameters={"rank": "0"}, minimum_coverage=share
            )
            (part,) = answer.certificate.missed_ranges
            assert (part.key_start, part.key_end, part.item_count) == (start, end, len(missed))
            assert release.rows_of(answer.ids) == wanted_of(release, 4, missed).rows[:20]
            assert degraded(answer) == set()
            with pytest.raises(CoverageTooLow) as refused:
                await served.client.recommend(release.users[4], minimum_coverage=share + 0.01)
            assert refused.value.certificate is not None
            named = await served.client.recommend(release.users[4], item_attributes=["title"])
            has_title = [bool(each) for each in named.attributes]
            assert has_title == [row not in missed for row in release.rows_of(named.ids)]

            served.cluster.signal("node-0", signal.SIGKILL)

            async def is_gone() -> bool:
                answer = await served.client.recommend(release.users[4])
                return answer.certificate.coverage == 0

            await until_async(is_gone, within_s=5, what="nothing is searched")
            alone = await served.client.recommend(
                release.users[4], parameters={"rank": "0"}, item_attributes=["title"]
            )
            with pytest.raises(CoverageTooLow, match="source index, which the pipeline requires"):
                await served.client.recommend(release.users[4], pipeline="strict")
            everything = frozenset(range(len(release.keys)))
            assert release.rows_of(alone.ids) == wanted_of(release, 4, everything).rows[:20]
            assert degraded(alone) == {"source:index", "features"}
            assert alone.attributes == [{}] * 20
            # Nothing was searched for, so nothing was missed.
            popular = await served.client.recommend("nobody", minimum_coverage=1.0)
            assert degraded(popular) >= {"fallback"}
