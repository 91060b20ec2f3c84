"""The generated marketplace: the same for the same arguments, and with the structure that it claims."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.marketplace import Marketplace, generate

ITEMS, USERS, PAIRS = 4_000, 300, 15_000


@pytest.fixture(scope="module")
def world() -> Marketplace:
    return generate(ITEMS, USERS, PAIRS, seed=3)


def test_same_arguments_same_world(world: Marketplace, tmp_path: Path) -> None:
    """Two worlds of one seed are equal to the byte on disk; another seed gives another one."""
    written = []
    for name, each in (("first", world), ("again", generate(ITEMS, USERS, PAIRS, seed=3))):
        (tmp_path / name).mkdir()
        each.write(tmp_path / name)
        files = ("interactions.csv", "titles.csv")
        written.append([(tmp_path / name / file).read_bytes() for file in files])

    assert written[0] == written[1]
    assert written[0][0].count(b"\n") == PAIRS + 1
    assert not np.array_equal(world.items, generate(ITEMS, USERS, PAIRS, seed=4).items)


def test_pairs_are_distinct_and_titles_too(world: Marketplace) -> None:
    """As many distinct pairs as asked for, of known users and items, in the order of users and times;
    a title for each item, no two alike."""
    pairs = set(zip(world.users.tolist(), world.items.tolist(), strict=True))

    assert (PAIRS, PAIRS) == (len(pairs), len(world.users))
    assert (1, USERS) == (world.users.min(), world.users.max())
    assert world.items.min() >= 1 and world.items.max() <= ITEMS
    assert np.array_equal(np.lexsort((world.times, world.users)), np.arange(PAIRS))
    assert (ITEMS, ITEMS) == (len(world.titles), len(set(world.titles)))


def test_users_have_tastes(world: Marketplace) -> None:
    """Half of the users have most of their items from three of twenty departments; by chance none."""
    departments = np.array(world.departments)[world.items - 1]
    shares = []
    for user in range(1, USERS + 1):
        counts = np.unique(departments[world.users == user], return_counts=True)[1]
        shares.append(np.sort(counts)[-3:].sum() / counts.sum())
    assert np.median(shares) > 0.6


def test_items_differ_in_popularity(world: Marketplace) -> None:
    """The most popular tenth of the items has far more than a tenth of the interactions."""
    counts = np.sort(np.bincount(world.items, minlength=ITEMS))
    assert counts[-ITEMS // 10 :].sum() / PAIRS > 0.25


def test_what_was_had_calls_for_its_complements(world: Marketplace) -> None:
    """What follows an item most often follows it far more often than by chance would."""
    is_same_user = world.users[1:] == world.users[:-1]
    before, after = world.items[:-1][is_same_user], world.items[1:][is_same_user]
    pairs, counts = np.unique(np.stack([before, after]), axis=1, return_counts=True)
    often = pairs[:, counts >= 5]
    by_chance = np.unique(
        np.stack([before, np.random.default_rng(0).permutation(after)]), axis=1, return_counts=True
    )[1]

    assert often.shape[1] > 20 * (by_chance >= 5).sum()
    assert often.shape[1] > 100
