"""`rangefinder train`: bad input is refused in a line; good input becomes a release that recommends."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rangefinder.item_tables import ItemTables
from rangefinder.keys import IdKind, keys_of_integers
from rangefinder.release import ReleaseManifest, read_manifest
from rangefinder.user_tables import UserTables
from tests.kit.bad_interactions import BAD, prepare
from tests.kit.commands import Done, rangefinder_all, rangefinder_here, require_refused
from tests.kit.generated_tastes import generated_pairs, group_of
from tests.kit.loaded import load

PAIRS = generated_pairs(200, 120, 12)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    """`train` ends with an exit code and one line that names the file and the line in it, before it has
    trained anything, and leaves everything around --out as it was."""
    arguments = prepare(BAD[name], tmp_path)
    before = tree(tmp_path)

    done = rangefinder_here(*arguments)

    require_refused(done, BAD[name].words)
    assert tree(tmp_path) == before


async def test_bad_input_is_refused_by_a_real_process(tmp_path: Path) -> None:
    """The same from a shell, where nobody catches what the command lets through."""
    names = ("missing", "ragged", "one user", "Parquet cut", "titles of others")
    commands = {name: prepare(BAD[name], tmp_path / name) for name in names}
    for name, each in (await rangefinder_all(commands)).items():
        require_refused(each, BAD[name].words)


def write_pairs(path: Path) -> Path:
    path.write_text("".join(f"{user},{item}\n" for user, item in PAIRS))
    return path


def train(folder: Path, name: str, *options: object) -> Done:
    """Train from the pairs, or from what --interactions of the options says."""
    given = () if "--interactions" in options else ("--interactions", write_pairs(folder / "pairs"))
    return rangefinder_here("train", *given, "--out", folder / name, *options)


def opened(path: Path) -> tuple[ReleaseManifest, ItemTables, UserTables]:
    manifest = read_manifest(path)
    items, users = ItemTables.open(path, manifest), UserTables.open(path, manifest)
    assert items is not None and users is not None
    return manifest, items, users


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A release in three shards with titles, and what --json said of it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "titles").write_text("".join(f"{item + 1}::Title {item}::x\n" for _, item in PAIRS))
    options = ("--titles", folder / "titles", "--titles-id-offset", 1, "--shards", 3, "--json")
    done = train(folder, "release", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "release", json.loads(done.stdout)


def test_what_was_trained_is_told(trained: tuple[Path, dict[str, Any]]) -> None:
    """Counts, what the file was taken for, what was chosen, and how good it was on what was held out:
    the index beats popularity by a margin."""
    path, told = trained
    assert (200, 120, len(PAIRS), 0) == tuple(
        told[name] for name in ("users", "items", "interactions", "repeated")
    )
    assert "user = column 1, item = column 2" in told["taken_for"]
    assert {item for _, item in PAIRS} == set(range(120)) and told["titles"] == 120
    assert 3 == len(told["segments"]) and str(path) == told["path"]
    assert {"factors", "regularization", "alpha", "item_to_item"} < set(told["chosen"])
    ndcg = told["validation"]["ndcg_at_20"]
    assert 200 == told["validation"]["users"]
    assert ndcg["index"] > 1.5 * ndcg["popularity"] > 0
    assert ndcg["item_to_item"] > 1.5 * ndcg["popularity"]


def test_the_release_holds_what_is_served(trained: tuple[Path, dict[str, Any]]) -> None:
    """Tables of all that was given, nothing held out: each user finds embedding and history, and the
    index, asked by the embedding, finds items of the user's own group."""
    path, _ = trained
    _, items, users = opened(path)
    release = load(path)
    ids = dict(
        zip(items.places_of(keys_of_integers(np.arange(120), IdKind.INTEGER)), range(120), strict=True)
    )
    item_of_key = {int(items.keys[place]): item for place, item in ids.items()}
    own = 0
    for user in range(200):
        row = users.row_of(str(user))
        assert row is not None
        assert {item for other, item in PAIRS if other == user} == {
            ids[place] for place in users.history_of(row).tolist()
        }
        found = release.search(users.embeddings[row], 10, exact=False)
        own += sum(group_of(item_of_key[key]) == group_of(user) for key, _ in found)
    assert own > 0.8 * 200 * 10


def test_people_read_the_same(tmp_path: Path) -> None:
    """Without --json: a report with the figures, doubts about titles, and what to do next."""
    (tmp_path / "titles").write_text("".join(f"{item + 1},Title {item}\n" for _, item in PAIRS))
    done = train(tmp_path, "release", "--titles", tmp_path / "titles")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "rangefinder: warning: " in done.stderr
    assert "--titles-id-offset 1 it would be 120: is that the right one?" in done.stderr
    for words in (
        f"read {len(PAIRS):,} interactions of 200 users with 120 items",
        "titles: 119 of 120 items",
        "chosen: ",
        "popularity",
        "item_to_item",
        "ranker: ",
        f"next: rangefinder up --release {tmp_path / 'release'}",
    ):
        assert words in done.stdout


def test_the_same_seed_gives_the_same_release(tmp_path: Path) -> None:
    """On one thread every file of the release comes out bit for bit; with another seed it does not."""
    files = []
    for name, seed in (("first", 7), ("second", 7), ("third", 8)):
        done = train(tmp_path, name, "--seed", seed, "--threads", 1, "--shards", 2)
        assert done.returncode == 0, done.stderr
        files.append(read_manifest(tmp_path / name).files)
    assert files[0] == files[1]
    assert len(files[0]) > 15
    assert files[0] != files[2]


SMALL: dict[str, str] = {
    "two users, two items": "a,x\nb,y\n",
    "all users alike": "".join(f"{user},{item}\n" for user in range(30) for item in range(8)),
    "two interactions a user": "".join(f"{n},{n % 7}\n{n},{n % 5 + 7}\n" for n in range(40)),
    "one user of many items": "".join(f"1,{n}\n" for n in range(60)) + "2,5\n",
}


@pytest.mark.parametrize("name", SMALL)
def test_too_little_is_told_and_never_a_crash(name: str, tmp_path: Path) -> None:
    """What gives no ranker still gives a release, which can be loaded and asked."""
    (tmp_path / "x").write_text(SMALL[name])
    done = train(tmp_path, "release", "--interactions", tmp_path / "x", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["ranker"] is None and told["ranker_summary"].startswith("no ranker: ")
    _, items, users = opened(tmp_path / "release")
    assert np.isfinite(users.embeddings).all()
    if items.texts is None:
        release = load(tmp_path / "release")
        assert 2 <= len(release.search(users.embeddings[0], 5, exact=False)) <= 5


def test_help_shows_an_example() -> None:
    """`--help` shows the command as it is typed, in its own help and in that of `rangefinder`."""
    done = rangefinder_here("train", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  rangefinder train --interactions" in done.stdout.split("Options:", 1)[1]
    assert "  rangefinder train --interactions" in rangefinder_here("--help").stdout


MISUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no interactions": (("--out=o",), "Missing option '--interactions'"),
    "no out": (("--interactions=x",), "Missing option '--out'"),
    "strange format": (("--interactions=x", "--out=o", "--format=xml"), "Invalid value for '--format'"),
    "strange kind": (
        ("--interactions=x", "--out=o", "--id-kind=uuid"),
        "Invalid value for '--id-kind'",
    ),
    "no thread": (("--interactions=x", "--out=o", "--threads=0"), "Invalid value for '--threads'"),
    "negative seed": (("--interactions=x", "--out=o", "--seed=-1"), "Invalid value for '--seed'"),
    "strange name": (("--interactions=x", "--out=o", "--name=a/b"), "--name 'a/b': letters, digits"),
}


@pytest.mark.parametrize("name", MISUSED)
def test_misuse_is_explained(name: str) -> None:
    """Options that cannot be: exit code 2, why, and where to find help."""
    arguments, words = MISUSED[name]
    done = rangefinder_here("train", *arguments)
    assert done.returncode == 2
    assert f"\n\nError: {words}" in done.stderr
