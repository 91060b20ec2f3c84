"""Rankers as they are trained: what earns its place is shipped, whole and the same every time."""

from pathlib import Path

import numpy as np
import pytest

from rangefinder.candidates import INDEX
from ranker_service.card import CARD, MODEL
from tests.kit.ranked_world import ITEM_FEATURES, SOURCES, lists_of, trained
from training.list_rows import ListRows, features_for, parts_of
from training.metrics import mean_with_bounds
from training.ranker import USERS_MIN, train_ranker


def test_a_ranker_that_learns_something_is_shipped() -> None:
    """Where a second source knows more, the order by both is surely better; the line has figures."""
    outcome = trained()
    assert outcome.ranker is not None, outcome.summary
    figures = outcome.ranker.card.training
    assert 0 < figures.gain_low <= figures.gain <= figures.gain_high
    assert figures.ranker_ndcg > 1.05 * figures.retrieval_ndcg
    assert outcome.summary.startswith("ranker: ")
    for figure in (figures.ranker_ndcg, figures.retrieval_ndcg):
        assert f"{figure:.4f}" in outcome.summary
    assert f"{figures.gain_low:+.4f}" in outcome.summary
    assert SOURCES == outcome.ranker.card.sources
    assert ITEM_FEATURES == outcome.ranker.card.item_features


def test_a_useless_ranker_is_not_shipped() -> None:
    """Where the index's order is already right, there is no ranker, and the line says so."""
    outcome = train_ranker(lists_of(300, index_error=0.0), seed=1, threads=1)
    assert outcome.ranker is None
    assert outcome.summary.startswith("no ranker: not surely better")


def test_too_few_users_are_no_ranker() -> None:
    """One user less than is needed: no ranker, and how many would be needed is said."""
    lists = lists_of(USERS_MIN + 20)
    for labels in lists.labels[USERS_MIN - 1 :]:
        labels[:] = False
    outcome = train_ranker(lists, seed=1, threads=1)
    assert outcome.ranker is None
    assert f"{USERS_MIN - 1} users have something to learn from, {USERS_MIN} are" in outcome.summary


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """On one thread, model and card are equal byte for byte; another seed gives others."""
    lists = lists_of(200)
    contents = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        ranker = train_ranker(lists, seed=seed, threads=1).ranker
        assert ranker is not None
        (tmp_path / name).mkdir()
        described = ranker.save(tmp_path / name)
        assert (ranker.card.model, ranker.card.version) == (described.model, described.version)
        contents.append([(tmp_path / name / file).read_bytes() for file in (MODEL, CARD)])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_figures_are_of_users_that_training_did_not_see() -> None:
    """Parts share no user and lose none; the card's retrieval figure is that of the judging part."""
    lists = lists_of(600)
    parts = parts_of(600, seed=1)
    together = np.concatenate([parts.fitting, parts.judging])
    assert list(range(600)) == sorted(together.tolist())

    rows = ListRows(lists, features_for(lists))
    judging = parts.judging
    ndcg = rows.ndcg(judging, [rows.by_index(number) for number in judging.tolist()])
    ranker = trained().ranker
    assert ranker is not None
    assert ranker.card.training.users_judged == len(judging)
    assert ranker.card.training.retrieval_ndcg == pytest.approx(mean_with_bounds(ndcg)[0])


def test_retrieval_alone_is_the_order_of_the_index() -> None:
    """A list ordered by the index has NDCG@20 as counted by hand: what it lacks counts as missed."""
    lists = lists_of(3)
    candidates, labels = lists.lists[1], lists.labels[1]
    ranks = candidates.source_ranks[:, candidates.sources.index(INDEX)]
    gains = sum(1 / np.log2(rank + 1) for rank in ranks[labels].tolist() if 1 <= rank <= 20)
    ideal = sum(1 / np.log2(place + 1) for place in range(1, 6))
    rows = ListRows(lists, features_for(lists))
    assert rows.ndcg(np.array([1]), [rows.by_index(1)])[0] == pytest.approx(gains / ideal)
