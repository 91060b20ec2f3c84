"""`make demo`, with files that are small enough for a test."""

import asyncio
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.marketplace import generate
from rangefinder.release import read_manifest
from tests.kit.real_sets import real_set
from tests.kit.remains import processes_of

SERVED = (
    *["items, such as: "] * 5,
    *("Neighbours of an item", "How much an index finds", "node-1 is killed"),
    *("The next answer says what it missed", "then the answer is whole"),
)
RANKED = ("ranker-0 is killed", "in the order of retrieval", "then the answer is ranked")
UNRANKED = ("No ranker to lose",)


@dataclass(frozen=True, slots=True)
class Demo:
    """What one run printed, step by step."""

    headings: list[str]
    outputs: list[str]  # Below each heading.
    has_ranker: bool

    def output_of(self, words: str) -> str:
        return next(out for step, out in zip(self.headings, self.outputs, strict=True) if words in step)

    @property
    def expected(self) -> tuple[str, ...]:
        """Words of every heading."""
        parts = "a router and a ranker" if self.has_ranker else "a router and no ranker"
        end = RANKED if self.has_ranker else UNRANKED
        return ("Trained", f"Served by 2 nodes, {parts}", *SERVED, *end, "Everything is stopped")


async def demo(interactions: Path, titles: Path, folder: Path) -> Demo:
    """Run it to its end; nothing is left running, and nothing but the killed processes ended."""
    files = ("--interactions", interactions, "--titles", titles, "--folder", folder)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "scripts.demo", *map(str, files)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert 0 == done.returncode, (done.stdout, done.stderr)
    _, *outputs = re.split("^== .*$", done.stdout, flags=re.MULTILINE)
    has_ranker = read_manifest(folder / "release").ranker is not None
    ended = [line.partition(" (")[0] for line in done.stderr.splitlines()]
    killed = ["node-1", "ranker-0"] if has_ranker else ["node-1"]
    assert [f"rangefinder: {name} ended" for name in killed] == ended
    assert [] == processes_of(folder)
    return Demo(re.findall("^== (.*)$", done.stdout, re.MULTILINE), outputs, has_ranker)


def require_steps(shown: Demo) -> None:
    """Every step was taken in order; what was lost is told where it was lost, and only there."""
    words = zip(shown.expected, shown.headings, strict=True)
    assert [] == [(word, step) for word, step in words if word not in step]
    assert "missed keys" in shown.output_of("says what it missed")
    assert "missed keys" not in shown.output_of("then the answer is whole")


async def test_the_demo_goes_from_a_file_to_recommendations(tmp_path: Path) -> None:
    """Every step is taken, and users' items and their recommendations have titles."""
    world = generate(2_000, 400, 30_000, seed=6)
    world.write(tmp_path)
    files = (tmp_path / "interactions.csv", tmp_path / "titles.csv")
    shown = await demo(*files, tmp_path / "demo")

    require_steps(shown)
    for step, output in zip(shown.headings, shown.outputs, strict=True):
        if "such as: " in step:
            had = step.partition("such as: ")[2].split("; ")
            assert [] == [title for title in had if title not in world.titles]
            assert sum(title in output for title in world.titles) >= 5


async def test_the_demo_loses_its_ranker_too(tmp_path: Path) -> None:
    """On films (MovieLens 100K) a ranker ships: without it the answer says that nobody ranked it."""
    films = real_set("ml-100k")
    shown = await demo(films / "u.data", films / "u.item", tmp_path / "demo")

    require_steps(shown)
    assert shown.has_ranker
    assert "ranked by " not in shown.output_of("in the order of retrieval")
    assert "items are in retrieval order" in shown.output_of("in the order of retrieval")
    assert "ranked by " in shown.output_of("then the answer is ranked")
