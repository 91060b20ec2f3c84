"""What `build` and `train` share: the name of a release, and a table of what was built."""

import re
from pathlib import Path

import click

from rangefinder.cli.output import print_table
from rangefinder.release import ReleaseManifest
from shard_server.segment_files import read_description

Row = tuple[str, int, int, str]  # Segment, items, bytes, and width for recall@10.


def release_name(name: str | None, out: Path) -> str:
    """The name given, or that of the folder as far as a name can have its letters."""
    chosen = name or re.sub(r"[^A-Za-z0-9._-]+", "-", out.resolve().name).strip("-._") or "release"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", chosen):
        raise click.UsageError(f"--name {chosen!r}: letters, digits, '.', '_' and '-'; at most 128")
    return chosen


def segment_rows(out: Path, manifest: ReleaseManifest) -> list[Row]:
    """Each segment, and what a search width of 0 means in it."""
    rows: list[Row] = []
    for shard in manifest.shards:
        for segment in shard.segments:
            about = read_description(out / "shards" / shard.name / segment)
            width = about.calibration.width_for(10)
            size = sum(
                manifest.files[file].size
                for file in manifest.files_below(f"shards/{shard.name}/{segment}")
            )
            rows.append((f"{shard.name}/{segment}", about.row_count, size, str(width or "exact")))
    return rows


def segments_as_values(rows: list[Row]) -> list[dict[str, object]]:
    """The table for JSON."""
    return [
        {"name": name, "items": items, "bytes": size, "width_at_10": width}
        for name, items, size, width in rows
    ]


def print_segments(manifest: ReleaseManifest, rows: list[Row]) -> None:
    """The table for people."""
    print_table(
        f"release {manifest.name}: {manifest.item_count:,} items of {manifest.dimension} dimensions",
        ("segment", "items", "bytes", f"width for recall@10 >= {manifest.recall_target}"),
        rows,
    )
