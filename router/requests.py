"""Public requests as values: every field checked, each fault named with what would be right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rangefinder.cluster_map import ClusterMap, Release
from rangefinder.deadline import Deadline
from rangefinder.edge.columns import floats_of, integers_of
from rangefinder.errors import InvalidRequest, WrongDimension
from rangefinder.keys import TEXT_BYTES_MAX, IdKind, Keys, keys_of_integers, keys_of_texts
from rangefinder.v1 import recommendation_pb2 as public
from rangefinder.v1.types_pb2 import ItemIds, Vector, VectorBlock
from rangefinder.width import ITEM_COUNT_MAX, WIDTH_MAX, step_for
from router.batch import BATCH_ITEMS_MAX, Group, QueryBlock

# Fields that are obeyed; others are refused where they are set.
_OBEYED = (
    *("item_count", "search_width", "exact", "excluded_items"),
    *("minimum_coverage", "release", "request_id"),
)
OBEYED_RETRIEVE = frozenset(["query", *_OBEYED])
OBEYED_BATCH = frozenset(["queries", *_OBEYED])
OBEYED_CANCEL = frozenset(["batch_id", "cancel"])
OBEYED_STREAM = frozenset(["batch_id", "batch", "cancel", "time_allowed_ms"])

DEFAULT_ITEM_COUNT = 100
QUERIES_MAX = 1024
EXCLUDED_MAX = 10_000
BATCH_EXCLUDED_MAX = 100_000
REQUEST_ID_BYTES_MAX = 128

_SQUARES_MAX = float(np.finfo(np.float32).max)

_NO_KEYS: Keys = np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """A checked Retrieve or RetrieveBatch."""

    request_id: str  # For the log; empty where the caller named none.
    block: QueryBlock
    minimum_coverage: float
    uses_default_width: bool


def retrieval_of(
    request: public.RetrieveRequest, cluster_map: ClusterMap, deadline: Deadline
) -> Retrieval:
    """Raises InvalidRequest, WrongDimension, UnknownRelease."""
    release = cluster_map.release(request.release)
    queries = query_of(request.query, release, "query.values")
    excluded: Sequence[Keys] = ()
    if request.HasField("excluded_items"):
        kind = cluster_map.id_kind
        keys = keys_of_ids(request.excluded_items, kind, "excluded_items", EXCLUDED_MAX)
        excluded = [keys] if len(keys) else ()
    return _retrieval(request, release, queries, excluded, deadline)


def batch_retrieval_of(
    request: public.RetrieveBatchRequest, cluster_map: ClusterMap, deadline: Deadline
) -> Retrieval:
    """Raises InvalidRequest, WrongDimension, UnknownRelease."""
    release = cluster_map.release(request.release)
    queries = _vectors(request.queries, release)
    excluded = _excluded(request.excluded_items, len(queries), cluster_map.id_kind)
    retrieval = _retrieval(request, release, queries, excluded, deadline)
    items = retrieval.block.items_wanted
    if items > BATCH_ITEMS_MAX:
        raise InvalidRequest(
            "item_count", f"{items} items in all: at most {BATCH_ITEMS_MAX}, so send fewer queries"
        )
    return retrieval


def _retrieval(
    request: public.RetrieveRequest | public.RetrieveBatchRequest,
    release: Release,
    queries: npt.NDArray[np.float32],
    excluded: Sequence[Keys],
    deadline: Deadline,
) -> Retrieval:
    """What both kinds have in common."""
    item_count = in_range("item_count", request.item_count or DEFAULT_ITEM_COUNT, 1, ITEM_COUNT_MAX)
    width = _width(request.search_width, request.exact, item_count)
    require_request_id(request.request_id)
    block = QueryBlock(
        group=Group(release.name, width, request.exact),
        queries=queries,
        item_count=item_count,
        excluded=excluded,
        deadline=deadline.with_reserve(),
    )
    return Retrieval(
        request_id=request.request_id,
        block=block,
        minimum_coverage=minimum_coverage_of(request.minimum_coverage),
        uses_default_width=width == 0 and not request.exact,
    )


def _width(width: int, exact: bool, item_count: int) -> int:
    """The step of the ladder that a width is rounded up to; 0 stays."""
    if width == 0:
        return 0
    if exact:
        raise InvalidRequest("search_width", "must be 0 where exact is set: there is no index search")
    return step_for(in_range("search_width", width, item_count, WIDTH_MAX))


def in_range(field: str, value: int, least: int, most: int) -> int:
    """The value. Raises InvalidRequest."""
    if not least <= value <= most:
        raise InvalidRequest(field, f"{value} is not in [{least}, {most}]")
    return value


def minimum_coverage_of(value: float) -> float:
    if not 0 <= value <= 1:  # Also refuses NaN.
        raise InvalidRequest("minimum_coverage", f"{value} is not in [0, 1]")
    return value


def require_request_id(request_id: str) -> None:
    if request_id and len(request_id.encode()) > REQUEST_ID_BYTES_MAX:
        raise InvalidRequest("request_id", f"longer than {REQUEST_ID_BYTES_MAX} bytes")


def query_of(vector: Vector, release: Release, field: str) -> npt.NDArray[np.float32]:
    """One embedding as a row. Raises WrongDimension, InvalidRequest."""
    values = floats_of(vector)
    if len(values) != release.dimension:
        raise _wrong_dimension(len(values), release)
    queries = values.reshape(1, -1)
    _require_finite(queries, field)
    return queries


def _wrong_dimension(dimension: int, release: Release) -> WrongDimension:
    return WrongDimension(
        f"{dimension} values, but embeddings of release {release.name} have {release.dimension}"
    )


def _vectors(block: VectorBlock, release: Release) -> npt.NDArray[np.float32]:
    count = in_range("queries.count", block.count, 1, QUERIES_MAX)
    size, row_size = len(block.float32_le), 4 * release.dimension
    if size != count * row_size:
        if size and size % (4 * count) == 0:
            raise _wrong_dimension(size // (4 * count), release)
        raise InvalidRequest(
            "queries.float32_le", f"{size} bytes, but {count} rows are {count * row_size}"
        )
    values = np.frombuffer(block.float32_le, "<f4").reshape(count, release.dimension)
    _require_finite(values, "queries.float32_le")
    return values


def _require_finite(rows: npt.NDArray[np.float32], field: str) -> None:
    wide = rows.astype(np.float64)  # Squares of float32 never overflow here; NaN compares as false.
    squares = np.vecdot(wide, wide)
    if not squares.max() <= _SQUARES_MAX:  # Of NaN and anything, the maximum is NaN.
        row = int(np.argmin(squares <= _SQUARES_MAX))
        raise InvalidRequest(
            field, f"row {row} holds NaN, an infinity, or values too large to square in float32"
        )


def _excluded(lists: Sequence[ItemIds], query_count: int, kind: IdKind) -> Sequence[Keys]:
    if not lists:
        return ()
    if len(lists) != query_count:
        raise InvalidRequest(
            "excluded_items", f"{len(lists)} entries for {query_count} queries: none, or one for each"
        )
    keys = [keys_of_ids(ids, kind, "excluded_items", EXCLUDED_MAX) for ids in lists]
    total = sum(len(each) for each in keys)
    if total > BATCH_EXCLUDED_MAX:
        raise InvalidRequest("excluded_items", f"{total} ids in all: at most {BATCH_EXCLUDED_MAX}")
    return keys if total else ()


def keys_of_ids(ids: ItemIds, kind: IdKind, field: str, count_max: int) -> Keys:
    """The keys of a column of ids. Raises InvalidRequest for the other kind, or too many."""
    column, other = (ids.integers, ids.texts) if kind.is_integer else (ids.texts, ids.integers)
    if len(other):
        own = "integers" if kind.is_integer else "texts"
        raise InvalidRequest(field, f"ids of this cluster are {own}: set {field}.{own}")
    if len(column) > count_max:
        raise InvalidRequest(field, f"{len(column)} ids: at most {count_max}")
    if not len(column):
        return _NO_KEYS
    if kind.is_integer:
        return keys_of_integers(integers_of(ids), kind)
    return keys_of_texts([_text(text, field) for text in ids.texts])


def _text(text: str, field: str) -> bytes:
    content = text.encode()
    if not 1 <= len(content) <= TEXT_BYTES_MAX:
        raise InvalidRequest(field, f"an id of {len(content)} bytes: 1 to {TEXT_BYTES_MAX}")
    return content
