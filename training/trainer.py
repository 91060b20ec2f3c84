"""The whole way from interactions to what a release holds."""

from collections.abc import Callable
from dataclasses import dataclass

from rangefinder.item_tables import ItemTables
from rangefinder.keys import IdKind
from rangefinder.user_tables import UserTables
from training import item_to_item
from training.factor_search import STEP_COUNT, Choice, choose
from training.factors import Factors, blas_threads, learn_factors
from training.held_out import HeldOutUsers
from training.interactions import Interactions
from training.lists import ndcg_by_source, ranking_lists
from training.ranker import RankerOutcome, train_ranker
from training.split import Split, split
from training.tables import item_tables, user_tables


@dataclass(frozen=True, slots=True)
class Progress:
    """Told of a stage's name and size, then of the steps done."""

    begin: Callable[[str, int], None]
    advance: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOrder:
    """What to learn from: interactions in the order of keys (see key_order.py)."""

    interactions: Interactions
    id_kind: IdKind
    seed: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a release is built from, and how good it was on what was held out."""

    choice: Choice
    factors: Factors
    items: ItemTables
    users: UserTables
    ranker: RankerOutcome
    judged_count: int  # Users of whom something was held out, as far as they were judged.
    ndcg: dict[str, float]  # Mean NDCG@20 of each source alone and of the merged order.


def train(order: TrainOrder, progress: Progress) -> Trained:
    """Choose, judge and train the ranker by a part; then learn from all. Raises InputRefused."""
    with blas_threads(order.threads):
        parts = split(order.interactions, order.seed)
        progress.begin("choosing hyper-parameters", STEP_COUNT)
        choice = choose(parts, order.seed, order.threads, progress.advance)
        ranker, ndcg, judged_count = _judge(order, parts, choice, progress)
        progress.begin("learning embeddings", 1)
        factors, items = _learn(order, order.interactions, choice)
        progress.advance(1)
    return Trained(
        choice=choice,
        factors=factors,
        items=items,
        users=user_tables(order.interactions, factors.users),
        ranker=ranker,
        judged_count=judged_count,
        ndcg=ndcg,
    )


def _judge(
    order: TrainOrder, parts: Split, choice: Choice, progress: Progress
) -> tuple[RankerOutcome, dict[str, float], int]:
    """A ranker, the NDCG@20 of what it is to beat, and for how many users that was seen."""
    if not len(parts.held_out):
        why = "no ranker: no user has the five interactions of which one can be held out"
        return RankerOutcome(ranker=None, summary=why), {}, 0
    held_out = HeldOutUsers.of(parts, order.seed)
    progress.begin("making candidate lists", len(held_out.users))
    lists = ranking_lists(held_out, *_learn(order, parts.part, choice), progress.advance)
    ndcg = ndcg_by_source(held_out, lists)
    progress.begin("training the ranker", 1)
    ranker = train_ranker(lists, order.seed, order.threads)
    progress.advance(1)
    return ranker, ndcg, len(held_out.users)


def _learn(order: TrainOrder, interactions: Interactions, choice: Choice) -> tuple[Factors, ItemTables]:
    factors = learn_factors(interactions, choice.settings, order.seed, order.threads)
    neighbours = item_to_item.learn(interactions, choice.item_to_item)
    return factors, item_tables(interactions, order.id_kind, neighbours)
