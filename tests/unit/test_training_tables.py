"""Tables of a release and the candidate lists made from them, against oracles in plain Python."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.candidates import CANDIDATE_COUNT, INDEX, ITEM_TO_ITEM, POPULARITY, QUOTAS, WEIGHTS
from rangefinder.keys import IdKind, keys_of_integers
from tests.kit.generated_tastes import generated_pairs, interactions_of_pairs
from training import neighbours
from training.factors import Factors
from training.held_out import HeldOutUsers
from training.histories import Histories
from training.lists import MERGED, ndcg_by_source, ranking_lists
from training.neighbours import neighbours_of
from training.ranking_lists import RankingLists
from training.split import Split, split
from training.tables import item_tables, user_tables

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 12)), unique=True, min_size=2, max_size=60)


def similarities(histories: list[list[int]], penalty: float) -> dict[int, dict[int, float]]:
    """The formula of neighbours.py, pair by pair."""
    weight: dict[int, float] = defaultdict(float)
    both: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for history in histories:
        for item in history:
            weight[item] += 1 / len(history)
            for other in history:
                if other != item:
                    both[item][other] += 1 / len(history)
    return {
        item: {other: count / weight[other] ** penalty for other, count in others.items()}
        for item, others in both.items()
    }


@pytest.mark.parametrize("block_pairs", [1, 40, 10**9])
@given(PAIRS, st.sampled_from([0.0, 0.3, 1.0]))
def test_neighbours_are_those_of_brute_force(
    block_pairs: int, pairs: list[tuple[int, int]], penalty: float
) -> None:
    """However the work is cut into blocks: the four most similar of each item, scores add up to 1."""
    whole = interactions_of_pairs(pairs)
    histories = Histories.of_interactions(whole)
    oracle = similarities([histories.of(user).tolist() for user in range(whole.user_count)], penalty)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_BLOCK_PAIRS", block_pairs)
        (found,) = neighbours_of(whole, [penalty], 4)

    for item in range(whole.item_count):
        others = oracle.get(item, {})
        kept = sorted(others.values(), reverse=True)[:4]
        is_neighbour = found.places[item] >= 0
        places, scores = found.places[item][is_neighbour], found.scores[item][is_neighbour]
        assert is_neighbour.sum() == len(kept) and (found.scores[item][~is_neighbour] == 0).all()
        assert np.allclose([score / sum(kept) for score in kept], scores, rtol=1e-4)
        # Each place has its own score; which of nearly equal ones are kept is not to be told here.
        assert np.allclose([others[place] / sum(kept) for place in places.tolist()], scores, rtol=1e-4)
        assert len(set(places.tolist())) == len(places)


def test_several_penalties_are_counted_at_once() -> None:
    """Each gives what it gives alone."""
    whole = interactions_of_pairs(generated_pairs(60, 40, 8))
    for together, penalty in zip(neighbours_of(whole, [0.2, 0.7]), (0.2, 0.7), strict=True):
        (alone,) = neighbours_of(whole, [penalty])
        assert np.array_equal(alone.places, together.places)
        assert np.array_equal(alone.scores, together.scores)


def test_of_long_histories_the_newest_count() -> None:
    """A user of very many items adds the pairs of the newest of them only."""
    count = neighbours.HISTORY_MAX + 20
    pairs = [(0, item) for item in range(count)] + [(1, 0), (1, 1)]
    whole = interactions_of_pairs(pairs, [float(item) for _, item in pairs])
    (found,) = neighbours_of(whole, [0.5])
    ids = np.asarray(whole.item_ids)
    reached = {int(ids[item]) for item in range(whole.item_count) if (found.places[item] >= 0).any()}
    assert {0, 1, *range(20, count)} == reached


def test_tables_say_what_the_interactions_say() -> None:
    """Counts by popularity, then by key; keys ascend; each user has their own history and embedding."""
    pairs = generated_pairs(50, 30, 6)
    whole = interactions_of_pairs(pairs)
    (near,) = neighbours_of(whole, [0.5])
    items = item_tables(whole, IdKind.INTEGER, near)
    embeddings = np.arange(100, dtype=np.float32).reshape(50, 2)
    users = user_tables(whole, embeddings)

    ids = np.asarray(whole.item_ids)
    assert np.array_equal(keys_of_integers(ids, IdKind.INTEGER), items.keys)
    counts = {item: sum(item == other for _, other in pairs) for _, item in pairs}
    expected = sorted(range(len(ids)), key=lambda place: (-counts[int(ids[place])], place))
    assert expected == items.popular.tolist()
    assert [counts[int(ids[place])] for place in expected] == items.popular_scores.tolist()
    assert items.features.shape == (len(ids), len(items.feature_names))
    for user in range(50):
        row = users.row_of(str(user))
        assert row is not None and whole.user_ids[row] == str(user).encode()
        assert embeddings[row].tolist() == users.embeddings[row].tolist()
        had = {item for other, item in pairs if other == user}
        assert had == set(ids[users.history_of(row)].tolist())


def test_popular_items_were_had_by_somebody() -> None:
    """An item whose interactions are all held out is not proposed as popular."""
    whole = interactions_of_pairs([(0, 0), (0, 1), (1, 1), (1, 2)])
    part = whole.part(np.flatnonzero(np.asarray(whole.item_ids)[whole.items] != 2))
    (near,) = neighbours_of(part, [0.5])
    tables = item_tables(part, IdKind.INTEGER, near)
    assert [1, 0] == np.asarray(whole.item_ids)[tables.popular].tolist()


SEED_COUNT = 12  # Less than the histories have, as the newest of long ones.


@pytest.fixture(scope="module")
def parts() -> Split:
    pairs = generated_pairs(120, 900, 40, seed=3)
    times = np.random.default_rng(9).permutation(len(pairs)).astype(float).tolist()
    return split(interactions_of_pairs(pairs, times), 0)


@pytest.fixture(scope="module")
def lists(parts: Split) -> tuple[RankingLists, HeldOutUsers, Factors]:
    """Factors are random: what matters is that lists follow from them."""
    random = np.random.default_rng(5)
    users = random.standard_normal((parts.part.user_count, 8)).astype(np.float32)
    items = random.standard_normal((parts.part.item_count, 8)).astype(np.float32)
    (near,) = neighbours_of(parts.part, [0.4])
    tables = item_tables(parts.part, IdKind.INTEGER, near)
    held_out = HeldOutUsers.of(parts, 0)
    factors = Factors(users, items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.lists.SEED_COUNT_MAX", SEED_COUNT)
        return ranking_lists(held_out, factors, tables), held_out, factors


def ranked(scores: dict[int, float], count: int) -> list[int]:
    return sorted(scores, key=lambda place: (-scores[place], place))[:count]


def test_lists_are_those_of_the_router(
    parts: Split, lists: tuple[RankingLists, HeldOutUsers, Factors]
) -> None:
    """Candidate by candidate what plain Python makes of the same factors and tables: index, neighbours
    of the newest items, popular items, nothing that the user had, merged by reciprocal ranks."""
    made, held_out, factors = lists
    tables = made.tables
    assert parts.part.times is not None
    had: dict[int, dict[int, float]] = defaultdict(dict)
    for user, item, time in zip(parts.part.users, parts.part.items, parts.part.times, strict=True):
        had[int(user)][int(item)] = float(time)

    for user, candidates, labels, relevant in zip(
        held_out.users.tolist(), made.lists, made.labels, held_out.relevant, strict=True
    ):
        inner = {
            place: math.fsum(float(a) * float(b) for a, b in zip(factors.users[user], row, strict=True))
            for place, row in enumerate(factors.items)
            if place not in had[user]
        }
        similar: dict[int, float] = defaultdict(float)
        for seed in sorted(had[user], key=lambda item: -had[user][item])[:SEED_COUNT]:
            for place, score in zip(
                tables.neighbours[seed], tables.neighbour_scores[seed], strict=True
            ):
                if place >= 0 and int(place) not in had[user]:
                    similar[int(place)] += float(score)
        popular = [place for place in tables.popular.tolist() if place not in had[user]]
        orders = {
            INDEX: ranked(inner, QUOTAS[INDEX]),
            ITEM_TO_ITEM: ranked(similar, QUOTAS[ITEM_TO_ITEM]),
            POPULARITY: popular[: QUOTAS[POPULARITY]],
        }
        merged: dict[int, float] = defaultdict(float)
        for source, order in orders.items():
            for rank, place in enumerate(order, start=1):
                merged[place] += WEIGHTS[source] / (60 + rank)
        expected = tables.keys[ranked(merged, CANDIDATE_COUNT)]

        assert expected.tolist() == candidates.keys.tolist()
        assert tuple(orders) == candidates.sources
        assert [key in tables.keys[relevant] for key in candidates.keys] == labels.tolist()
    assert [len(own) for own in held_out.relevant] == made.relevant_counts.tolist()


def test_each_source_is_judged_alone(lists: tuple[RankingLists, HeldOutUsers, Factors]) -> None:
    """Random factors know nothing, neighbours much, and the merged order is in between."""
    made, held_out, _ = lists
    ndcg = ndcg_by_source(held_out, made)
    assert [POPULARITY, INDEX, ITEM_TO_ITEM, MERGED] == list(ndcg)
    assert ndcg[INDEX] < ndcg[MERGED] < ndcg[ITEM_TO_ITEM]


def test_of_very_many_users_a_sample_is_judged(parts: Split) -> None:
    """At most as many as asked for, the same each time, each with what was held out of them."""
    sample, again = (HeldOutUsers.of(parts, 3, 10) for _ in range(2))
    assert 10 == len(set(sample.users.tolist())) == len(sample.relevant)
    assert sample.users.tolist() == again.users.tolist()
    for user, relevant in zip(sample.users, sample.relevant, strict=True):
        assert relevant.tolist() == parts.held_out.items[parts.held_out.users == user].tolist()


def test_a_list_is_judged_in_its_order(parts: Split) -> None:
    """What is right counts more at the beginning, and not at all beyond the first twenty."""
    held_out = HeldOutUsers.of(parts, 0)
    wrong = np.arange(100_000, 100_020)
    first = held_out.ndcg(np.concatenate([own, wrong]) for own in held_out.relevant)
    last = held_out.ndcg(np.concatenate([wrong[len(own) :], own]) for own in held_out.relevant)
    assert math.isclose(1.0, first) and 0.0 < last < 0.9
    assert 0.0 == held_out.ndcg(np.concatenate([wrong, own]) for own in held_out.relevant)
