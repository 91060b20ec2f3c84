"""What `rangefinder eval` asks a running cluster for each user, and how long single answers take."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rangefinder.answers import Certificate, Ids
from rangefinder.cli.output import ProgressBars
from rangefinder.client import Client
from rangefinder.errors import RangefinderError
from rangefinder.item_tables import ItemTables, Places
from rangefinder.keys import IdKind
from rangefinder.user_tables import UserTables
from router.batch import BATCH_ITEMS_MAX
from router.requests import BATCH_EXCLUDED_MAX, EXCLUDED_MAX, QUERIES_MAX
from training.evaluation import (
    HeldOut,
    as_block,
    ids_of_places,
    places_of_ids,
    popular_lists,
    recall_by_score,
    slices_within,
)

# A batch does the work of hundreds of requests: it gets the longest time that a router grants.
_BATCH_S = 10.0
# Texts of 256 bytes: so many are half of what a request may hold.
_EXCLUDED_TEXTS_MAX = 30_000
_RECALL_AT = 10
_RECALL_QUERIES_MAX = 2_000

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Whom to ask for, what the release knows of them, and how to ask."""

    release: str
    kind: IdKind
    held: HeldOut
    users: UserTables
    items: ItemTables
    item_count: int  # Of each list.
    concurrency: int
    deadline_s: float

    def ids(self, places: Places) -> Ids:
        return ids_of_places(self.items, self.kind, places)

    def places(self, ids: Ids) -> Places:
        return places_of_ids(self.items, self.kind, ids)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What the answers say of themselves, and which requests had none."""

    answers: int = 0
    coverages: list[float] = field(default_factory=list)
    degradations: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    rankers: Counter[str] = field(default_factory=Counter)

    def count(self, certificate: Certificate) -> None:
        self.answers += 1
        self.coverages.append(certificate.coverage)
        # One answer may have taken the same rung more than once.
        self.degradations.update({f"{each.stage}: {each.reason}" for each in certificate.degradations})

    @property
    def failed(self) -> int:
        return self.failures.total()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A list for every user of an evaluation, and how it came about."""

    lists: npt.NDArray[np.int64]  # Shape (users, item_count): places, -1 pads; of a failure all -1.
    tally: Tally


async def retrieve_all(client: Client, order: Evaluation, bars: ProgressBars) -> Answered:
    """Retrieval alone: the index by each user's embedding, without what the user had.

    A user that the release does not know has no embedding and gets the popular items.
    """
    known = np.flatnonzero(order.held.rows >= 0)
    lists = popular_lists(order.held, order.items, order.item_count)
    tally = Tally()
    bars.begin("retrieval alone", len(known))
    for part in _batches(order, known):
        try:
            lists[part] = await _retrieve(client, order, part, tally)
        except RangefinderError as error:
            lists[part] = -1
            tally.failures[error.reason] += len(part)
        bars.advance(len(part))
    return Answered(lists=lists, tally=tally)


def _batches(order: Evaluation, places: Places) -> Iterator[Places]:
    """Users in parts that fit into one call."""
    sizes = [min(len(order.held.history[place]), EXCLUDED_MAX) for place in places]
    ids_max = BATCH_EXCLUDED_MAX if order.items.texts is None else _EXCLUDED_TEXTS_MAX
    rows_max = min(QUERIES_MAX, BATCH_ITEMS_MAX // order.item_count)
    for part in slices_within(sizes, rows_max, ids_max):
        yield places[part]


async def _retrieve(
    client: Client, order: Evaluation, part: Places, tally: Tally
) -> npt.NDArray[np.int64]:
    """Lists of some known users by one call. Raises RangefinderError."""
    histories = [order.held.history[place] for place in part]
    answer = await client.retrieve_batch(
        order.users.embeddings[order.held.rows[part]],
        order.item_count,
        excluded_ids=[order.ids(history[:EXCLUDED_MAX]) for history in histories],
        release=order.release,
        deadline_s=_BATCH_S,
    )
    tally.count(answer.certificate)
    found = [order.places(answer.of_query(place)[0]) for place in range(len(part))]
    # A history may be longer than what a request can leave out.
    own = [row[~np.isin(row, history)] for row, history in zip(found, histories, strict=True)]
    return as_block(own, order.item_count)


async def recommend_all(client: Client, order: Evaluation, bars: ProgressBars, stage: str) -> Answered:
    """The whole pipeline, by user id, many requests in flight."""
    lists = np.full((len(order.held), order.item_count), -1, np.int64)
    tally = Tally()
    waiting = iter(range(len(order.held)))
    bars.begin(stage, len(order.held))

    async def work() -> None:
        for place in waiting:  # Shared by all workers.
            found = await recommend_one(client, order, place, tally)
            lists[place, : len(found)] = found
            bars.advance(1)

    async with asyncio.TaskGroup() as group:
        for number in range(order.concurrency):
            group.create_task(work(), name=f"recommend-{number}")
    return Answered(lists=lists, tally=tally)


async def recommend_one(client: Client, order: Evaluation, place: int, tally: Tally) -> Places:
    """What one user is recommended; a failure is counted, and recommends nothing."""
    try:
        answer = await client.recommend(
            order.held.user_ids[place],
            order.item_count,
            exclude_seen=True,
            release=order.release,
            deadline_s=order.deadline_s,
        )
    except RangefinderError as error:
        tally.failures[error.reason] += 1
        return np.empty(0, np.int64)
    tally.count(answer.certificate)
    tally.rankers[answer.ranker_model] += 1
    return order.places(answer.ids)


async def index_recall(client: Client, order: Evaluation, bars: ProgressBars) -> float:
    """Recall@10 of width 0 against exact searches with users' embeddings. Raises RangefinderError."""
    rows = np.unique(order.held.rows[order.held.rows >= 0])
    count = min(len(rows), _RECALL_QUERIES_MAX)
    rows = rows[np.arange(count) * len(rows) // count]
    found: list[Scores] = []
    truth: list[Scores] = []
    bars.begin("index recall", len(rows))
    for part in slices_within([1] * len(rows), QUERIES_MAX, QUERIES_MAX):
        for scores, exact in ((found, False), (truth, True)):
            answer = await client.retrieve_batch(
                order.users.embeddings[rows[part]],
                _RECALL_AT,
                exact=exact,
                minimum_coverage=1.0,
                release=order.release,
                deadline_s=_BATCH_S,
            )
            scores.append(_score_block(answer.scores, answer.item_counts))
        bars.advance(part.stop - part.start)
    return recall_by_score(np.concatenate(found), np.concatenate(truth))


def _score_block(scores: Scores, counts: npt.NDArray[np.int64]) -> Scores:
    block = np.full((len(counts), _RECALL_AT), -np.inf, np.float32)
    block[np.arange(_RECALL_AT) < counts[:, None]] = scores
    return block


async def retrieve_ms(client: Client, order: Evaluation, count: int) -> list[float]:
    """Milliseconds of each of `count` Retrieve, one in flight; those that failed are left out."""
    known = np.flatnonzero(order.held.rows >= 0)

    async def retrieve(number: int) -> None:
        place = known[number % len(known)]
        await client.retrieve(
            order.users.embeddings[order.held.rows[place]],
            order.item_count,
            excluded_ids=order.ids(order.held.history[place][:EXCLUDED_MAX]),
            release=order.release,
            deadline_s=order.deadline_s,
        )

    return await _timed(retrieve, count)


async def recommend_ms(client: Client, order: Evaluation, count: int) -> list[float]:
    """Milliseconds of each of `count` Recommend, one in flight; those that failed are left out."""

    async def recommend(number: int) -> None:
        await client.recommend(
            order.held.user_ids[number % len(order.held)],
            order.item_count,
            exclude_seen=True,
            release=order.release,
            deadline_s=order.deadline_s,
        )

    return await _timed(recommend, count)


async def _timed(call: Callable[[int], Awaitable[None]], count: int) -> list[float]:
    took: list[float] = []
    for number in range(count):
        began_s = time.perf_counter()
        try:
            await call(number)
        except RangefinderError:
            continue
        took.append((time.perf_counter() - began_s) * 1000)
    return took


def percentiles_of(took_ms: Sequence[float]) -> tuple[float, float] | None:
    """p50 and p99; None where nothing was measured."""
    if not took_ms:
        return None
    p50, p99 = np.percentile(took_ms, [50, 99])
    return float(p50), float(p99)
