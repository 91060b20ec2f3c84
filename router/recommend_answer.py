"""The items of a recommendation as messages: made for the few that are returned, not for candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

from rangefinder.candidates import Candidates, Places
from rangefinder.keys import IdKind, Keys, integers_of_keys
from rangefinder.v1 import item_pb2
from rangefinder.v1 import recommendation_pb2 as public
from rangefinder.v1.types_pb2 import ItemIds
from router.ranking import Ranking


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """What is returned: places in the list of candidates, those that a ranker scored first."""

    candidates: Candidates
    places: Places
    ranking: Ranking | None
    texts: Mapping[int, bytes]  # In a text cluster: the id of each key.

    @property
    def keys(self) -> Keys:
        return self.candidates.keys[self.places]

    @property
    def ranked_count(self) -> int:
        return 0 if self.ranking is None else min(len(self.ranking.places), len(self.places))


def add_items(
    response: public.RecommendResponse, ordered: Ordered, kind: IdKind, *, explain: bool
) -> None:
    """Append the items, best first."""
    candidates, ranked_count = ordered.candidates, ordered.ranked_count
    is_proposed = candidates.source_ranks[ordered.places] > 0
    scores = candidates.scores[ordered.places]
    if ordered.ranking is not None:
        scores[:ranked_count] = ordered.ranking.scores[:ranked_count]
    field = "integer_id" if kind.is_integer else "text_id"
    proposers: dict[tuple[bool, ...], list[str]] = {}  # Of items that the same sources proposed.
    rows = zip(_ids(ordered, kind), scores.tolist(), is_proposed.tolist(), strict=True)
    for place, (item_id, score, proposed) in enumerate(rows):
        item = response.items.add()
        setattr(item, field, item_id)
        item.score, item.ranked = score, place < ranked_count
        if (by := tuple(proposed)) not in proposers:
            proposers[by] = [*compress(candidates.sources, proposed)]
        item.sources.extend(proposers[by])
        if explain:
            _explain(item.explanation, ordered, place)


def _ids(ordered: Ordered, kind: IdKind) -> Sequence[int | str]:
    if kind.is_integer:
        integers: list[int] = integers_of_keys(ordered.keys, kind).tolist()
        return integers
    return [ordered.texts[key].decode() for key in ordered.keys.tolist()]


def _explain(explanation: public.ItemExplanation, ordered: Ordered, place: int) -> None:
    candidates, row = ordered.candidates, int(ordered.places[place])
    explanation.SetInParent()
    for column, source in enumerate(candidates.sources):
        rank = int(candidates.source_ranks[row, column])
        if rank:
            score = float(candidates.source_scores[row, column])
            explanation.source_scores.add(source=source, score=score, rank=rank)
    if ordered.ranking is not None and place < ordered.ranked_count:
        for name, values in ordered.ranking.head_scores.items():
            explanation.head_scores[name] = float(values[place])
        for name, values in ordered.ranking.features.items():
            explanation.features[name] = float(values[place])


def ids_of_items(response: public.RecommendResponse, kind: IdKind) -> ItemIds:
    """The ids of the items as a column."""
    if kind.is_integer:
        return ItemIds(integers=[item.integer_id for item in response.items])
    return ItemIds(texts=[item.text_id for item in response.items])


def add_attributes(
    response: public.RecommendResponse, read: Mapping[int, item_pb2.Item], names: frozenset[str]
) -> None:
    """Give items those of their attributes that were asked for; `read` holds items by place."""
    for place, item in read.items():
        attributes = response.items[place].attributes
        for name in names & item.attributes.fields.keys():
            attributes.fields[name].CopyFrom(item.attributes.fields[name])
