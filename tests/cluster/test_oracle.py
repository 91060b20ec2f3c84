"""Answers of real clusters against brute force, over catalogues that look for trouble."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pytest

from rangefinder import Retrieved
from tests.kit import oracle
from tests.kit.nasty_world import Catalogue, Ids, Rows
from tests.kit.served import Served

METRICS = ("ip", "cosine", "l2")
SEED = 20_241
IN_FLIGHT = 16
RECALL_TARGET = 0.98

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, and the truth about it."""

    query: Rows
    item_count: int
    excluded_ids: Ids
    excluded_rows: frozenset[int]
    scores: list[float]  # Of each row.
    ranking: list[tuple[int, float]]  # (row, score) of all items, best first.

    @property
    def truth(self) -> list[tuple[int, float]]:
        """(row, score) of the true answer."""
        return [hit for hit in self.ranking if hit[0] not in self.excluded_rows][: self.item_count]

    def recall(self, answer: Retrieved, item_count: int) -> float:
        """Share of the true first item_count that were found; of equal scores any item counts."""
        truth = [score for _, score in self.truth[:item_count]]
        found = answer.scores[: len(truth)].tolist()
        return sum(score >= truth[-1] for score in found) / len(truth) if truth else 1.0


def random_asks(catalogue: Catalogue) -> list[Ask]:
    """One for each query of the catalogue."""
    random = np.random.default_rng(SEED)
    return [_random_ask(catalogue, query, random) for query in catalogue.queries]


def _random_ask(catalogue: Catalogue, query: Rows, random: np.random.Generator) -> Ask:
    total = len(catalogue.ids)
    is_modest = random.random() < 0.95
    item_count = int(random.integers(1, 1_001) if is_modest else random.integers(total, 10_001))
    scores = oracle.scores(catalogue.metric, catalogue.rows, query)
    ranking = oracle.best(scores, catalogue.keys, total)
    top = [row for row, _ in ranking[: min(item_count, 3_000)]]
    rows: list[int] = []
    match random.choice(["none", "top", "part of top", "any"], p=[0.4, 0.2, 0.2, 0.2]):
        case "top":
            rows = top
        case "part of top":
            rows = random.choice(top, 50).tolist()  # Some of them twice.
        case "any":
            rows = random.choice(total, random.integers(1, 2_000)).tolist()
    return Ask(
        query=query,
        item_count=item_count,
        excluded_ids=_some_ids(catalogue, rows),
        excluded_rows=frozenset(rows),
        scores=scores,
        ranking=ranking,
    )


def _some_ids(catalogue: Catalogue, rows: list[int]) -> Ids:
    """Ids of some rows, and one that is not in the catalogue."""
    if catalogue.id_kind == "text":
        return ["none of ours", *(str(catalogue.ids[row]) for row in rows)]
    return [12_345, *(int(catalogue.ids[row]) for row in rows)]


@pytest.fixture(scope="module")
def asks(nasty: dict[str, Served]) -> dict[str, list[Ask]]:
    """By metric."""
    return {metric: random_asks(served.catalogue) for metric, served in nasty.items()}


async def all_of(work: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Results in order; IN_FLIGHT at a time."""
    permits = asyncio.Semaphore(IN_FLIGHT)

    async def run(each: Callable[[], Awaitable[T]]) -> T:
        async with permits:
            return await each()

    return list(await asyncio.gather(*(run(each) for each in work)))


async def retrieve_all(
    served: Served, asks: Sequence[Ask], *, width: int = 0, exact: bool = False, item_count: int = 0
) -> list[Retrieved]:
    """The answer to each request; item_count other than 0 replaces theirs."""

    async def retrieve(ask: Ask) -> Retrieved:
        wanted = item_count or ask.item_count
        return await served.client.retrieve(
            ask.query,
            wanted,
            search_width=max(width, wanted) if width else 0,
            exact=exact,
            excluded_ids=ask.excluded_ids,
        )

    return await all_of([lambda ask=ask: retrieve(ask) for ask in asks])  # type: ignore[misc]


@pytest.mark.parametrize("metric", METRICS)
async def test_exact_answers_are_those_of_brute_force(
    nasty: dict[str, Served], asks: dict[str, list[Ask]], metric: str
) -> None:
    """An exact answer has the oracle's ids and scores, to the last bit, ties in the oracle's order."""
    ids = nasty[metric].catalogue.ids
    answers = await retrieve_all(nasty[metric], asks[metric], exact=True)
    for number, (ask, answer) in enumerate(zip(asks[metric], answers, strict=True)):
        where = f"{metric}, seed {SEED}, request {number}: {ask.item_count} items"
        truth = ask.truth
        assert [ids[row] for row, _ in truth] == list(answer.ids), where
        assert [score for _, score in truth] == answer.scores.tolist(), where


@pytest.mark.parametrize("metric", METRICS)
async def test_default_width_holds_the_recall_target(
    nasty: dict[str, Served], asks: dict[str, list[Ask]], metric: str
) -> None:
    """Recall@10 is at least 0.98 at width 0, for ten items and for any number; answers are truthful."""
    for item_count in (0, 10):
        answers = await retrieve_all(nasty[metric], asks[metric], item_count=item_count)
        for number, (ask, answer) in enumerate(zip(asks[metric], answers, strict=True)):
            require_truthful(nasty[metric].catalogue, ask, answer, item_count, f"request {number}")
        recalls = [ask.recall(answer, 10) for ask, answer in zip(asks[metric], answers, strict=True)]
        assert float(np.mean(recalls)) >= RECALL_TARGET, f"{metric}, seed {SEED}: {item_count}"


@pytest.mark.parametrize("width", [10, 100, 1_500])
@pytest.mark.parametrize("metric", METRICS)
async def test_answers_of_any_width_are_truthful(
    nasty: dict[str, Served], asks: dict[str, list[Ask]], metric: str, width: int
) -> None:
    """Whatever the width: true scores in answer order, nothing excluded or twice, as many as wanted."""
    some = asks[metric][:60]
    answers = await retrieve_all(nasty[metric], some, width=width)
    for number, (ask, answer) in enumerate(zip(some, answers, strict=True)):
        require_truthful(nasty[metric].catalogue, ask, answer, 0, f"width {width}, request {number}")


def require_truthful(
    catalogue: Catalogue, ask: Ask, answer: Retrieved, item_count: int, where: str
) -> None:
    """The answer may have missed items, but what it says is true. item_count 0: that of the request."""
    where = f"{catalogue.metric}, seed {SEED}, {where}"
    rows, scores = catalogue.rows_of(answer.ids), ask.scores
    available = len(catalogue.ids) - len(ask.excluded_rows)
    assert min(item_count or ask.item_count, available) == len(rows), where
    assert len(rows) == len(set(rows)), where
    assert not ask.excluded_rows & set(rows), where
    assert [scores[row] for row in rows] == answer.scores.tolist(), where
    order = [(-score, catalogue.keys[row]) for score, row in zip(answer.scores, rows, strict=True)]
    assert sorted(order) == order, where


async def test_plain_world_holds_the_recall_target_by_index(plain: Served) -> None:
    """Under inner product too an index, not an exact search, gives recall@10 of 0.98 at width 0."""
    assert "exact" not in plain.release.widths_at_10
    queries = plain.catalogue.queries[:250]
    truth = await plain.client.retrieve_batch(queries, 10, exact=True, minimum_coverage=1.0)
    found = await plain.client.retrieve_batch(queries, 10, minimum_coverage=1.0)
    last_true = truth.scores.reshape(-1, 10)[:, 9:]
    recall = float((found.scores.reshape(-1, 10) >= last_true).mean())
    assert recall >= RECALL_TARGET


@pytest.mark.parametrize("metric", METRICS)
async def test_certificate_of_a_whole_answer(nasty: dict[str, Served], metric: str) -> None:
    """It counts every item, names epoch and release, times the stages, and has no reservation."""
    served, query = nasty[metric], nasty[metric].catalogue.queries[0]
    total = len(served.catalogue.ids)
    for width, exact in ((0, False), (200, False), (0, True)):
        began_s = asyncio.get_running_loop().time()
        answer = await served.client.retrieve(query, 100, search_width=width, exact=exact)
        took_ms = (asyncio.get_running_loop().time() - began_s) * 1000
        certificate = answer.certificate
        assert 1.0 == certificate.coverage
        assert (total, total) == (certificate.item_count, certificate.item_count_searched)
        assert () == certificate.missed_ranges
        assert 1 == certificate.map_epoch
        assert served.release.name == certificate.release
        assert {"queue", "retrieval", "merge"} == set(certificate.stage_ms)
        assert all(duration_ms >= 0 for duration_ms in certificate.stage_ms.values())
        assert 0 < sum(certificate.stage_ms.values()) <= took_ms
        if width == 0 and not exact:
            assert certificate.estimated_recall is not None
            assert RECALL_TARGET <= certificate.estimated_recall <= 1
        else:
            assert certificate.estimated_recall is None
