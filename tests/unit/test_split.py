"""What is held out, what stays, and the order of keys that codes are put into."""

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.keys import IdKind, keys_of_integers, keys_of_texts
from rangefinder.texts import TextColumn
from tests.kit.generated_tastes import interactions_of_pairs, pairs_of
from training.histories import Histories
from training.interactions import Interactions
from training.key_order import in_key_order
from training.split import split

PAIRS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(-20, 20)), unique=True, min_size=1, max_size=60
)


def by_user(pairs: list[tuple[int, int]]) -> dict[int, set[int]]:
    sets: dict[int, set[int]] = defaultdict(set)
    for user, item in pairs:
        sets[user].add(item)
    return sets


@given(PAIRS, st.integers(0, 3))
def test_a_fifth_of_each_user_is_held_out(pairs: list[tuple[int, int]], seed: int) -> None:
    """The parts share nothing and lose nothing; each user's fifth is rounded down; the seed decides."""
    whole = interactions_of_pairs(pairs)
    parts = split(whole, seed)
    kept, held = pairs_of(parts.part), pairs_of(parts.held_out)
    assert sorted(pairs) == sorted(kept + held)
    counts = {user: len(items) // 5 for user, items in by_user(pairs).items()}
    held_counts = {user: len(items) for user, items in by_user(held).items()}
    assert {user: count for user, count in counts.items() if count} == held_counts
    assert held == pairs_of(split(whole, seed).held_out)


def test_another_seed_holds_out_others() -> None:
    """Where there are no times, what is held out is random."""
    whole = interactions_of_pairs([(user, item) for user in range(9) for item in range(20)])
    assert pairs_of(split(whole, 1).held_out) != pairs_of(split(whole, 2).held_out)


def test_the_latest_are_held_out() -> None:
    """Where times exist, nothing that is held out is older than what stays of the user."""
    pairs = [(user, item) for user in range(4) for item in range(11)]
    times = [float((user * 7 + item * 5) % 11) for user, item in pairs]
    time_of = dict(zip(pairs, times, strict=True))
    parts = split(interactions_of_pairs(pairs, times), 0)
    for user in range(4):
        held = [time_of[user, item] for item in by_user(pairs_of(parts.held_out))[user]]
        kept = [time_of[user, item] for item in by_user(pairs_of(parts.part))[user]]
        assert [9.0, 10.0] == sorted(held)
        assert max(kept) < min(held)


@given(PAIRS)
def test_histories_hold_what_each_user_had(pairs: list[tuple[int, int]]) -> None:
    """Each user's own items; with times, the newest first."""
    times = [float((user * 31 + item * 17) % 101) for user, item in pairs]
    for whole in (interactions_of_pairs(pairs), interactions_of_pairs(pairs, times)):
        histories = Histories.of_interactions(whole)
        ids = whole.item_ids
        assert not isinstance(ids, TextColumn)
        for code, text in enumerate(whole.user_ids):
            had = ids[histories.of(code)].tolist()
            assert by_user(pairs)[int(text)] == set(had) and len(set(had)) == len(had)
            if whole.times is not None:
                user_times = [times[pairs.index((int(text), item))] for item in had]
                assert sorted(user_times, reverse=True) == user_times


@given(PAIRS, st.sampled_from([IdKind.INTEGER, IdKind.ORDERED]))
def test_codes_in_key_order_stand_for_the_same_pairs(
    pairs: list[tuple[int, int]], kind: IdKind
) -> None:
    """Keys ascend with codes, pairs stay what they were and are sorted by user, then by item."""
    ordered = in_key_order(interactions_of_pairs(pairs), kind)
    ids = ordered.item_ids
    assert not isinstance(ids, TextColumn)
    assert sorted(pairs) == sorted(pairs_of(ordered))
    for keys in (keys_of_integers(ids, kind), keys_of_texts(ordered.user_ids)):
        assert (keys[1:] > keys[:-1]).all()
    codes = list(zip(ordered.users.tolist(), ordered.items.tolist(), strict=True))
    assert sorted(codes) == codes


def test_ratings_times_and_texts_move_with_their_pairs() -> None:
    """Nothing is left behind when codes change."""
    texts = TextColumn.of([b"a", b"b", b"c"])
    before = Interactions(
        users=np.array([0, 0, 1, 2], np.int32),
        items=np.array([0, 2, 1, 2], np.int32),
        ratings=np.array([1, 2, 3, 4], np.float32),
        times=np.array([10.0, 20.0, 30.0, 40.0]),
        user_ids=texts,
        item_ids=texts,
    )
    after = in_key_order(before, IdKind.TEXT)
    assert isinstance(after.item_ids, TextColumn) and after.ratings is not None
    assert after.times is not None
    rows = {
        (after.user_ids[user], after.item_ids[item], rating, time)
        for user, item, rating, time in zip(
            after.users, after.items, after.ratings.tolist(), after.times.tolist(), strict=True
        )
    }
    assert {(b"a", b"a", 1, 10), (b"a", b"c", 2, 20), (b"b", b"b", 3, 30), (b"c", b"c", 4, 40)} == rows
