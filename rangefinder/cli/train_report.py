"""What `train` says when it is done: what was read, chosen and built, and how good it was."""

from dataclasses import asdict, dataclass
from pathlib import Path

from rangefinder.cli.output import print_json, print_line, print_table
from rangefinder.cli.release_report import print_segments, segment_rows, segments_as_values
from rangefinder.keys import IdKind
from rangefinder.release import ReleaseManifest
from training.interactions import Interactions
from training.trainer import Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What was read."""

    interactions: Interactions  # In the order of keys.
    kind: IdKind
    titles: list[str] | None
    taken_for: str  # What the file was taken for, in words.
    repeated_count: int

    @property
    def title_count(self) -> int:
        return sum(map(bool, self.titles or ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What there is to tell."""

    source: Source
    trained: Trained
    manifest: ReleaseManifest
    seconds: dict[str, float]  # Of each stage.

    def print(self, out: Path, as_json: bool) -> None:
        if as_json:
            print_json(self._values(out))
        else:
            self._print_for_people(out)

    def _print_for_people(self, out: Path) -> None:
        interactions, trained = self.source.interactions, self.trained
        print_line(
            f"read {len(interactions):,} interactions of {interactions.user_count:,} users with"
            f" {interactions.item_count:,} items"
            f" ({self.source.repeated_count:,} repeated ones left out)"
        )
        print_line(f"taken for {self.source.taken_for}")
        if self.source.titles is not None:
            print_line(f"titles: {self.source.title_count:,} of {interactions.item_count:,} items")
        print_line(f"chosen: {trained.choice.in_words}")
        if trained.ndcg:
            print_table(
                f"held out of {trained.judged_count:,} users",
                ("order of candidates", "NDCG@20"),
                list(trained.ndcg.items()),
            )
        print_line(trained.ranker.summary)
        print_segments(self.manifest, segment_rows(out, self.manifest))
        print_line(f"took {sum(self.seconds.values()):.0f} s")
        print_line(f"next: rangefinder up --release {out} --data-dir {out}.cluster")

    def _values(self, out: Path) -> dict[str, object]:
        interactions, trained = self.source.interactions, self.trained
        return {
            "release": self.manifest.name,
            "path": str(out),
            "users": interactions.user_count,
            "items": interactions.item_count,
            "interactions": len(interactions),
            "repeated": self.source.repeated_count,
            "taken_for": self.source.taken_for,
            "titles": self.source.title_count,
            "chosen": {
                **asdict(trained.choice.settings),
                "item_to_item": trained.choice.item_to_item.in_words,
            },
            "validation": {"users": trained.judged_count, "ndcg_at_20": trained.ndcg},
            "ranker": None if self.manifest.ranker is None else asdict(self.manifest.ranker),
            "ranker_summary": trained.ranker.summary,
            "dimension": self.manifest.dimension,
            "segments": segments_as_values(segment_rows(out, self.manifest)),
            "seconds": {stage: round(spent_s, 3) for stage, spent_s in self.seconds.items()},
        }
