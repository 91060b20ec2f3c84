"""Models and their cards: one that does not fit the other is refused before it ranks anything."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rangefinder.deadline import Deadline
from rangefinder.documents import from_yaml, to_yaml
from rangefinder.errors import DeadlineSpent, InputRefused, ReleaseDamaged
from rangefinder.release import RankerDescription
from ranker_service.card import CARD, MODEL, RELEVANCE, Card, Feature, Head, open_model
from ranker_service.model import CHUNK_ROWS, Model
from ranker_service.ranker import Ranker, Ranking
from tests.kit.ranked_world import RankedRelease, item_tables, trained, write_ranked_release

NO_HURRY = Deadline(1.0, lambda: 0.0)


@pytest.fixture
def ranked(tmp_path: Path) -> RankedRelease:
    return write_ranked_release(tmp_path / "release")


def described(card: Card) -> RankerDescription:
    return RankerDescription(model=card.model, version=card.version)


def write(ranked: RankedRelease, card: Card) -> None:
    """Another card, in a release that is whole."""
    (ranked.path / CARD).write_text(to_yaml(card), encoding="utf-8")
    ranked.seal(described(ranked.card))


def test_a_ranker_is_read_as_it_was_written(ranked: RankedRelease) -> None:
    """The card comes back, and the model scores as the one that was trained."""
    card, model = open_model(ranked.path, ranked.manifest)
    outcome = trained().ranker
    assert outcome is not None
    assert outcome.card == card
    rows = np.random.default_rng(0).random((50, len(card.features)), np.float32)
    own = Model(outcome.content, len(card.features), card.head_names, "own")
    assert own.score(rows, NO_HURRY).tobytes() == model.score(rows, NO_HURRY).tobytes()


# How a card is changed, and what is said of it.
MISFITS: dict[str, tuple[Callable[[Card], Card], str]] = {
    "a feature less": (
        lambda card: replace(card, features=card.features[1:]),
        "model.onnx: takes features tensor\\(float\\) of width",
    ),
    "another head": (
        lambda card: replace(card, heads=(Head(name="clicks", weight=1.0),)),
        "model.onnx: gives relevance .* but its card says clicks",
    ),
    "another version": (lambda card: replace(card, version="v9"), "card.yaml: lambdamart v9, not"),
    "an item feature that the release lacks": (
        lambda card: replace(card, item_features=(*card.item_features, "age")),
        "card.yaml: reads item feature age, which the release does not have",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_model_that_does_not_fit_its_card_is_refused(ranked: RankedRelease, misfit: str) -> None:
    """Each is found when the release is opened, and the file is named with what does not fit."""
    change, words = MISFITS[misfit]
    write(ranked, change(ranked.card))
    with pytest.raises(ReleaseDamaged, match=words):
        Ranker.open(ranked.path, ranked.manifest)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x01"])
def test_what_is_no_model_is_refused(ranked: RankedRelease, content: bytes) -> None:
    """Whole files that hold no model are named, in one line."""
    (ranked.path / MODEL).write_bytes(content)
    ranked.seal(described(ranked.card))
    with pytest.raises(ReleaseDamaged, match="no model that onnxruntime loads") as refusal:
        open_model(ranked.path, ranked.manifest)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", [CARD, MODEL])
def test_a_damaged_ranker_is_refused(ranked: RankedRelease, name: str) -> None:
    """A flipped byte is found by its checksum."""
    content = bytearray((ranked.path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (ranked.path / name).write_bytes(content)
    with pytest.raises(ReleaseDamaged, match=f"{name}: checksum"):
        open_model(ranked.path, ranked.manifest)


def test_a_release_without_a_ranker_is_refused(ranked: RankedRelease) -> None:
    """A ranking service has nothing to do there, and says so."""
    ranked.seal(None)
    with pytest.raises(InputRefused, match="release release has no ranker"):
        open_model(ranked.path, ranked.manifest)


BAD_CARDS: dict[str, tuple[Callable[[Card], Card], str]] = {
    "unknown view": (
        lambda card: replace(card, features=(Feature(name="index.luck", default=0.0),)),
        "features: no index.luck",
    ),
    "unknown source": (
        lambda card: replace(card, features=(Feature(name="friends.rank", default=0.0),)),
        "features: no friends.rank",
    ),
    "no features": (lambda card: replace(card, features=()), "features: none, or"),
    "twice": (lambda card: replace(card, features=card.features[:1] * 2), "features: none, or"),
    "no heads": (lambda card: replace(card, heads=()), "heads: none, or"),
    "a source named item": (lambda card: replace(card, sources=("item",)), "sources: a name that"),
}


@pytest.mark.parametrize("bad", BAD_CARDS)
def test_a_card_that_makes_no_sense_is_refused(bad: str) -> None:
    """A feature that nothing computes is found in the card itself."""
    change, words = BAD_CARDS[bad]
    card = trained().ranker
    assert card is not None
    with pytest.raises(InputRefused, match=words):
        change(card.card)


def test_an_unknown_key_of_a_card_is_refused(ranked: RankedRelease) -> None:
    """As in every document."""
    text = to_yaml(ranked.card)
    assert ranked.card == from_yaml(text, Card, "card.yaml")
    with pytest.raises(InputRefused, match="luck: unknown key"):
        from_yaml(f"{text}luck: 1\n", Card, "card.yaml")


def test_a_score_depends_on_its_row_alone(ranked: RankedRelease) -> None:
    """Alone, among others, and across chunks, a row's score is the same bits."""
    card, model = open_model(ranked.path, ranked.manifest)
    random = np.random.default_rng(1)
    rows = (10 * random.standard_normal((3 * CHUNK_ROWS + 7, len(card.features)))).astype(np.float32)
    together = model.score(rows, NO_HURRY)
    order = random.permutation(len(rows))
    assert together[order].tobytes() == model.score(rows[order], NO_HURRY).tobytes()
    for size in (1, 2, 3, 17):
        parts = [model.score(rows[at : at + size], NO_HURRY) for at in range(0, 120, size)]
        assert together[:120].tobytes() == np.concatenate(parts)[:120].tobytes()


class Clock:
    """Tells the times it was given, then the last one for ever."""

    def __init__(self, *times_s: float) -> None:
        self._times_s = list(times_s)

    def __call__(self) -> float:
        return self._times_s.pop(0) if len(self._times_s) > 1 else self._times_s[0]


def ranking_of(count: int, card: Card) -> Ranking:
    random = np.random.default_rng(2)
    return Ranking(
        keys=np.arange(count, dtype=np.uint64),
        sources=card.sources,
        source_scores=random.random((count, len(card.sources)), np.float32),
        item_features={},
        head_weights=np.ones(1, np.float32),
    )


def test_when_time_is_short_the_best_retrieved_are_scored(ranked: RankedRelease) -> None:
    """One chunk in time: its candidates come first, by score; the rest as it came, without scores.

    The scores are those of an unhurried request: they rest on the whole list.
    """
    ranker = Ranker.open(ranked.path, ranked.manifest)
    count = CHUNK_ROWS + 50
    ranking = ranking_of(count, ranker.card)
    whole = ranker.rank(ranking, NO_HURRY)
    assert count == whole.scored_count
    hurried = Deadline(1.0, Clock(0.0, 0.0, 0.0, 0.0, 2.0))
    part = ranker.rank(ranking, hurried)
    assert CHUNK_ROWS == part.scored_count
    assert whole.scores[:CHUNK_ROWS].tobytes() == part.scores[:CHUNK_ROWS].tobytes()
    assert np.isnan(part.scores[CHUNK_ROWS:]).all()
    first, rest = part.order[:CHUNK_ROWS], part.order[CHUNK_ROWS:]
    assert sorted(first.tolist()) == list(range(CHUNK_ROWS))
    assert (np.diff(part.scores[first]) <= 0).all()
    assert list(range(CHUNK_ROWS, count)) == rest.tolist()


@pytest.mark.parametrize("times_s", [(2.0,), (0.0, 0.0, 0.0, 2.0)])
def test_nothing_scored_in_time_is_an_error(ranked: RankedRelease, times_s: tuple[float, ...]) -> None:
    """A deadline that has passed starts no work; one that passes before the first chunk ends it."""
    ranker = Ranker.open(ranked.path, ranked.manifest)
    with pytest.raises(DeadlineSpent):
        ranker.rank(ranking_of(5, ranker.card), Deadline(1.0, Clock(*times_s)))


def test_no_candidates_are_ranked_at_once(ranked: RankedRelease) -> None:
    """An empty list is an empty answer."""
    ranker = Ranker.open(ranked.path, ranked.manifest)
    found = ranker.rank(ranking_of(0, ranker.card), NO_HURRY)
    assert (0, 0) == (found.scored_count, len(found.order))


def test_the_world_of_these_tests_is_that_of_the_release(ranked: RankedRelease) -> None:
    """Item tables are read from the release, head and all."""
    assert (RELEVANCE,) == ranked.card.head_names
    assert set(ranked.card.item_features) <= set(item_tables().feature_names)
