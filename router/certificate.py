"""The certificate of an answer, and the packed columns that it comes with."""

from collections.abc import Iterable, Mapping

import numpy as np

from rangefinder.cluster_map import ClusterMap
from rangefinder.errors import CoverageTooLow
from rangefinder.internal.v1.packed_pb2 import PackedItemIds
from rangefinder.keys import KEY_COUNT, IdKind, Keys, integers_of_keys
from rangefinder.v1 import types_pb2 as wire
from rangefinder.v1.types_pb2 import Certificate, MissedRange, StageTiming
from router.coverage import Coverage
from router.degradation import Degradation

Timings = Iterable[tuple[str, float]]  # Stage and seconds.


def certificate_of(
    cluster_map: ClusterMap,
    release: str,
    coverage: Coverage,
    timings: Timings = (),
    *,
    with_recall: bool = False,
    degradations: Iterable[Degradation] = (),
) -> Certificate:
    """What the answer rests on. A served release is immutable, so no replica lags behind its log."""
    certificate = Certificate(
        map_epoch=cluster_map.epoch,
        release=release,
        item_count=coverage.item_count,
        item_count_searched=coverage.item_count_searched,
        replica_lag_ms=0,
        stage_timings=[
            StageTiming(stage=stage, duration_ms=seconds * 1000) for stage, seconds in timings
        ],
    )
    for missed in coverage.missed:
        certificate.missed_ranges.append(
            MissedRange(
                key_start=missed.shard.key_start,
                key_end=missed.shard.key_end % KEY_COUNT,
                item_count=missed.item_count,
                reason=missed.reason,
            )
        )
    for taken in degradations:
        certificate.degradations.append(
            wire.Degradation(stage=taken.stage, reason=taken.reason, detail=taken.detail)
        )
    if with_recall and coverage.item_count_searched:
        certificate.estimated_recall = coverage.probe_recall
    return certificate


def require_coverage(coverage: Coverage, minimum: float, certificate: Certificate) -> None:
    """Raise CoverageTooLow, with the certificate, where less was searched than the caller's minimum."""
    if coverage.share < minimum:
        reasons = sorted({missed.reason for missed in coverage.missed})
        raise CoverageTooLow(
            f"{coverage.share:.4f} of the catalogue was searched, {minimum:g} was asked for"
            f" ({', '.join(reasons)}): try again, or ask for less",
            certificate,
        )


def packed_ids(keys: Keys, kind: IdKind, texts: Mapping[int, bytes]) -> PackedItemIds:
    """A column of ids: rangefinder.v1.ItemIds on the wire."""
    if kind.is_integer:
        ids = integers_of_keys(np.ascontiguousarray(keys), kind)
        return PackedItemIds(integers=ids.astype("<i8", copy=False).tobytes())
    return PackedItemIds(texts=[texts[key] for key in keys.tolist()])
