"""A sealed segment: an immutable part of a shard, mapped from files, searched by index or exactly."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from rangefinder.keys import Keys
from rangefinder.merge import NO_SCORE, Hits, taken
from rangefinder.metric import Metric
from rangefinder.storage import map_array
from rangefinder.texts import TextColumn, map_texts
from rangefinder.width import WIDTH_MAX, step_for
from shard_server import segment_files as files
from shard_server.exact import RowNumbers, as_hits, search_exactly
from shard_server.index import UnreachableRows, VectorIndex
from shard_server.index.hnsw import HnswIndex
from shard_server.scoring import Rows, score_rows

if TYPE_CHECKING:
    from shard_server.attributes import AttributeColumns

# An exact search looks at so many rows while an index looks at one candidate.
_ROWS_PER_CANDIDATE = 32

# Values of candidates that are scored at once: float64 of 2 MB stay in the cache.
_SCORED_ELEMENTS_MAX = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Queries of one group, as a node searches them.

    `width` 0 is the narrowest that holds the recall target for the items wanted. `excluded` is empty
    or holds the keys that each query must not be answered with.
    """

    queries: Rows  # Shape (queries, dimension).
    wanted: npt.NDArray[np.int64]  # Items for each query, shape (queries,).
    width: int = 0
    exact: bool = False
    excluded: Sequence[Keys] = ()
    require_time_left: Callable[[], None] = field(default=lambda: None)

    def part(self, places: npt.NDArray[np.int64]) -> "Search":
        """The same search for some of its queries."""
        return Search(
            queries=self.queries[places],
            wanted=self.wanted[places],
            width=self.width,
            exact=self.exact,
            excluded=[self.excluded[place] for place in places] if self.excluded else (),
            require_time_left=self.require_time_left,
        )


@dataclass(slots=True)
class Fallbacks:
    """Searches that an index could not answer, so that they were made exactly."""

    count: int = 0


class Plan(NamedTuple):
    """The search width of a query, and how many candidates it needs of what the index finds."""

    width: int
    needed: int


EXACTLY = Plan(0, 0)


def _grouped(plans: Sequence[Plan]) -> Iterator[tuple[Plan, npt.NDArray[np.int64]]]:
    """Each plan with the places of the queries that share it."""
    places = sorted(range(len(plans)), key=lambda place: plans[place])
    for plan, group in groupby(places, key=lambda place: plans[place]):
        yield plan, np.fromiter(group, np.int64)


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows ascending by key, their index, and what else is known of them."""

    folder: Path
    description: files.SegmentDescription
    keys: Keys
    rows: Rows
    lengths: npt.NDArray[np.float32]
    index: VectorIndex | None
    texts: TextColumn | None
    fallbacks: Fallbacks
    attributes: "AttributeColumns | None"

    @classmethod
    def open(cls, folder: Path) -> "Segment":
        """Map a segment whose files were verified. Raises ReleaseDamaged."""
        about = files.read_description(folder)
        count, dimension = about.row_count, about.dimension
        return cls(
            folder=folder,
            description=about,
            keys=map_array(folder / files.KEYS, np.uint64, (count,)),
            rows=map_array(folder / files.ROWS, np.float32, (count, dimension)),
            lengths=map_array(folder / files.LENGTHS, np.float32, (count,)),
            index=HnswIndex.load(folder / files.INDEX, about.metric, dimension)
            if about.index
            else None,
            texts=_open_texts(folder, about),
            fallbacks=Fallbacks(),
            attributes=_open_attributes(folder) if about.has_attributes else None,
        )

    @property
    def metric(self) -> Metric:
        return self.description.metric

    @property
    def file_bytes(self) -> int:
        """Size of all files of the segment."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def effort(self, search: Search) -> int:
        """About how long a search takes, as a number of candidates that an index looks at."""
        exact = len(self.keys) // _ROWS_PER_CANDIDATE
        if self.fallbacks.count:
            return exact * len(search.queries)  # An index that failed once may fail again.
        plans = self._plans(search, [len(keys) for keys in search.excluded])
        return sum(plan.width or exact for plan in plans)

    def search(self, search: Search) -> Hits:
        """The best items of each query, in answer order."""
        excluded = [self.rows_of_keys(keys) for keys in search.excluded]
        plans = self._plans(search, [len(rows) for rows in excluded])
        if plans.count(plans[0]) == len(plans):
            with suppress(UnreachableRows):
                return self._follow(plans[0], search, excluded)
        return self._search_in_groups(search, plans, excluded)

    def _search_in_groups(
        self, search: Search, plans: Sequence["Plan"], excluded: Sequence[RowNumbers]
    ) -> Hits:
        """Queries of one plan together; those that an index fails are searched apart."""
        shape = (len(plans), int(search.wanted.max(initial=0)))
        found = Hits(np.zeros(shape, np.uint64), np.full(shape, NO_SCORE))
        groups = list(_grouped(plans))
        while groups:
            plan, places = groups.pop()
            rows = [excluded[place] for place in places] if excluded else []
            try:
                hits = self._follow(plan, search.part(places), rows)
            except UnreachableRows:
                groups += self._apart(plan, places, search.queries)
                continue
            found.keys[places, : hits.keys.shape[1]] = hits.keys
            found.scores[places, : hits.keys.shape[1]] = hits.scores
        return found

    def rows_of_keys(self, keys: Keys) -> RowNumbers:
        """Row numbers of those keys that the segment holds."""
        places = np.searchsorted(self.keys, keys)
        inside = places < len(self.keys)
        places, keys = places[inside], keys[inside]
        found: RowNumbers = places[self.keys[places] == keys]
        return found

    def _plans(self, search: Search, excluded_counts: Sequence[int]) -> list["Plan"]:
        """How each query is answered; excluded_counts is empty or has one for each."""
        wanted = search.wanted.tolist()
        if not excluded_counts and wanted.count(wanted[0]) == len(wanted):
            return [self._plan(search, wanted[0], 0)] * len(wanted)
        counts = excluded_counts or [0] * len(wanted)
        return [self._plan(search, *each) for each in zip(wanted, counts, strict=True)]

    def _plan(self, search: Search, wanted: int, excluded_count: int) -> "Plan":
        """How one query is answered. It depends on that query alone, never on its batch."""
        if search.exact or self.index is None:
            return EXACTLY
        needed = wanted + excluded_count
        if search.width == 0:
            width = self.description.calibration.width_for(needed)
        else:
            width = step_for(max(search.width, needed)) if needed <= WIDTH_MAX else None
        # A list of half the rows costs as much as looking at all of them.
        if width is None or width > len(self.keys) // 2:
            return EXACTLY
        return Plan(width, needed)

    def _follow(self, plan: "Plan", search: Search, excluded: Sequence[RowNumbers]) -> Hits:
        if plan == EXACTLY or self.index is None:
            return self._search_exactly(search, excluded)
        search.require_time_left()
        candidates = self.index.search(search.queries, plan.width)
        return self._best(search, candidates[:, : plan.needed], excluded)

    def _apart(
        self, plan: "Plan", places: npt.NDArray[np.int64], queries: Rows
    ) -> Iterator[tuple["Plan", npt.NDArray[np.int64]]]:
        """Queries of a batch that failed: those that fail alone are searched exactly, and no others."""
        reached = np.array([self._reaches(queries[place : place + 1], plan.width) for place in places])
        self.fallbacks.count += len(places) - int(np.count_nonzero(reached))
        for next_plan, part in ((plan, places[reached]), (EXACTLY, places[~reached])):
            if len(part):
                yield next_plan, part

    def _reaches(self, query: Rows, width: int) -> bool:
        assert self.index is not None
        try:
            self.index.search(query, width)
        except UnreachableRows:
            return False
        return True

    def _search_exactly(self, search: Search, excluded: Sequence[RowNumbers]) -> Hits:
        rows, scores = search_exactly(
            self.metric,
            self.rows,
            self.lengths,
            search.queries,
            int(search.wanted.max(initial=0)),
            excluded,
            search.require_time_left,
        )
        return as_hits(self.keys, rows, scores)

    def _best(self, search: Search, candidates: RowNumbers, excluded: Sequence[RowNumbers]) -> Hits:
        """Score candidates, as many as each query needs, and keep the best that are not excluded."""
        scores = self._scores(search.queries, candidates)
        for query, rows in enumerate(excluded):
            scores[query, np.isin(candidates[query], rows)] = NO_SCORE
        order = np.lexsort((candidates, -scores), axis=-1)[:, : int(search.wanted.max())]
        rows, scores = taken(candidates, order), taken(scores, order)
        return Hits(self.keys[rows], scores)

    def _scores(self, queries: Rows, candidates: RowNumbers) -> npt.NDArray[np.float32]:
        each = max(candidates.shape[1] * self.description.dimension, 1)
        step = max(_SCORED_ELEMENTS_MAX // each, 1)
        if len(queries) <= step:
            return score_rows(self.metric, self.rows[candidates], queries[:, None])
        scores = np.empty(candidates.shape, np.float32)
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            scores[part] = score_rows(self.metric, self.rows[candidates[part]], queries[part, None])
        return scores


def _open_texts(folder: Path, about: files.SegmentDescription) -> TextColumn | None:
    if about.text_bytes is None:
        return None
    return map_texts(folder, about.text_bytes, about.row_count)


def _open_attributes(folder: Path) -> "AttributeColumns":
    # Arrow takes several MB of private memory: nodes without attributes do without it.
    from shard_server.attributes import AttributeColumns

    return AttributeColumns.open(folder / files.ATTRIBUTES)
