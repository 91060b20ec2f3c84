"""`make demo`, with a file of one's own that is small enough for a test."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.marketplace import generate
from tests.kit.remains import processes_of

STEPS = (
    *("Trained", "Served by 2 nodes, a router and a ranker"),
    *["items, such as: "] * 5,
    *("Neighbours of an item", "How much an index finds", "node-1 is killed"),
    *("The next answer says what it missed", "then the answer is whole"),
    *("ranker-0 is killed", "in the order of retrieval", "then the answer is ranked"),
    "Everything is stopped",
)


async def test_the_demo_goes_from_a_file_to_recommendations(tmp_path: Path) -> None:
    """Every step is taken in order, users' items and their recommendations have titles, what is lost is
    told and comes back, and nothing is left running."""
    world = generate(4_000, 1_000, 80_000, seed=6)
    world.write(tmp_path)
    files = ("--interactions", tmp_path / "interactions.csv", "--titles", tmp_path / "titles.csv")
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "scripts.demo", *map(str, files), "--folder", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert 0 == done.returncode, (done.stdout, done.stderr)
    told = [line.partition(" (")[0] for line in done.stderr.splitlines()]
    assert ["rangefinder: node-1 ended", "rangefinder: ranker-0 ended"] == told
    steps = re.findall("^== (.*)$", done.stdout, re.MULTILINE)
    parts = re.split("^== .*$", done.stdout, flags=re.MULTILINE)

    assert len(STEPS) == len(steps), steps
    assert [True] * len(STEPS) == [words in step for words, step in zip(STEPS, steps, strict=True)]
    had = [step.partition("such as: ")[2].split("; ") for step in steps if "such as" in step]
    assert all(title in world.titles for titles in had for title in titles)
    for place, step in enumerate(steps):
        if "such as" in step:
            assert sum(title in parts[place + 1] for title in world.titles) >= 5
    missed, whole = (next(n for n, step in enumerate(steps) if words in step) for words in STEPS[10:12])
    assert "missed keys" in parts[missed + 1]
    assert "missed keys" not in parts[whole + 1]
    assert [] == processes_of(tmp_path)
