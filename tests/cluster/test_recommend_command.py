"""`rangefinder recommend`, and routers that have no tables, or the wrong ones."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rangefinder.cluster_map import ClusterMap, Node
from rangefinder.errors import InputRefused, UnknownUser
from rangefinder.keys import IdKind
from rangefinder.map_file import map_of_release
from rangefinder.release import read_manifest
from router.tables import open_tables
from tests.kit.commands import Done, rangefinder_all, rangefinder_here, require_refused
from tests.kit.recommending import Recommending, recommending
from tests.kit.scripted_ranker import MODEL, VERSION, score_of, scripted_ranker
from tests.kit.served import Served
from tests.kit.taste_oracle import expected
from tests.kit.tasted_release import TastedRelease, build_tasted_release


@pytest.fixture(scope="module")
async def release(tmp_path_factory: pytest.TempPathFactory) -> TastedRelease:
    return await asyncio.to_thread(build_tasted_release, tmp_path_factory.mktemp("command"), "text")


@pytest.fixture(scope="module")
async def served(
    release: TastedRelease, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Recommending]:
    folder = tmp_path_factory.mktemp("served")
    async with (
        scripted_ranker() as ranker,
        recommending(release, folder, [ranker.address]) as recommends,
    ):
        yield recommends


async def run(served: Recommending, **commands: tuple[object, ...]) -> dict[str, Done]:
    return await rangefinder_all(
        {
            name: ("recommend", *options, "--address", served.address)
            for name, options in commands.items()
        }
    )


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│").split("│")]


async def test_recommendations_are_shown(served: Recommending, release: TastedRelease) -> None:
    """A table of titles, scores, whether ranked, and sources, then what the answer rests on; --json
    has the same for programs. What the user had is left out unless --include-seen is given."""
    user = 5
    seen = release.histories[user]
    options = ("--user", release.users[user], "--count", 7)
    wanted = {
        is_seen: sorted(
            expected(
                release,
                embedding=release.embeddings[user],
                seeds=seen,
                excluded=() if is_seen else seen,
                count=500,
            ).rows,
            key=lambda row: -score_of(release.ids[row], "text"),
        )[:7]
        for is_seen in (False, True)
    }
    left_out = release.ids[wanted[False][0]]

    done = await run(
        served,
        table=options,
        json=(*options, "--json", "--attributes", "year,title"),
        seen=(*options, "--json", "--include-seen", "--attributes", ""),
        excluded=(*options, "--json", "--exclude", left_out),
        explained=(*options, "--explain"),
    )

    assert {(each.returncode, each.stderr) for each in done.values()} == {(0, "")}
    rows = [cells(line) for line in done["table"].stdout.splitlines() if line.startswith("│")]
    assert len(seen) > 5
    for place, (row, shown) in enumerate(zip(wanted[False], rows, strict=True)):
        title = f"title of {release.ids[row]}"
        assert [str(place + 1), release.ids[row], title] == shown[:3]
        assert float(shown[3]) == pytest.approx(score_of(release.ids[row], "text"), rel=1e-3)
        assert shown[4] == "yes"
    assert f"recommended for user {release.users[user]} " in done["table"].stdout
    assert f"ranked by {MODEL} {VERSION}" in done["table"].stdout
    assert "searched 1,500 of 1,500 items (100.0%)" in done["table"].stdout
    printed = {name: json.loads(done[name].stdout) for name in ("json", "seen", "excluded")}
    first = printed["json"]["items"][0]
    row = wanted[False][0]
    assert first["attributes"] == {"title": f"title of {first['id']}", "year": 1_900 + row}
    assert (first["id"], first["ranked"]) == (release.ids[row], True)
    assert (printed["json"]["ranker_model"], printed["json"]["certificate"]["degradations"]) == (
        MODEL,
        [],
    )
    found = {name: [item["id"] for item in each["items"]] for name, each in printed.items()}
    assert found["seen"] == [release.ids[row] for row in wanted[True]]
    assert left_out not in found["excluded"]
    assert found["excluded"][:6] == found["json"][1:]
    assert printed["seen"]["items"][0]["attributes"] == {}
    assert "#1 (" in done["explained"].stdout or "index #" in done["explained"].stdout


async def test_an_unknown_user_is_told_in_words(served: Recommending, release: TastedRelease) -> None:
    """Popular items are called that; recent items are named as what the answer goes by."""
    recent = next(row for row in release.neighbours if len(release.neighbours[row]) > 6)

    done = await run(
        served,
        unknown=("--user", "nobody"),
        recent=("--user", "nobody", "--recent", release.ids[recent]),
        unnamed=("--recent", release.ids[recent]),
    )

    assert {(each.returncode, each.stderr) for each in done.values()} == {(0, "")}
    assert "popular items, for the release knows nothing of user nobody" in done["unknown"].stdout
    assert "[UNKNOWN_USER]" in done["unknown"].stdout
    assert f"recommended after {release.ids[recent]}, for" in done["recent"].stdout
    assert f"recommended for somebody who had {release.ids[recent]}" in done["unnamed"].stdout
    assert "UNKNOWN_USER" not in done["unnamed"].stdout


def test_bad_options_are_refused() -> None:
    """With an exit code and a word that helps, before anybody is asked."""
    nobody = rangefinder_here("recommend")
    assert nobody.returncode == 2
    assert "give --user, --recent, or both" in nobody.stderr
    assert rangefinder_here("recommend", "--user", "a", "--count", 0).returncode == 2
    helped = rangefinder_here("recommend", "--help")
    assert (helped.returncode, "rangefinder recommend --user 7" in helped.stdout) == (0, True)


async def test_refusals_are_one_line(served: Recommending) -> None:
    """Of the server's own and of a router that is not there."""
    done = await run(
        served,
        long=("--user", "x" * 300),
        few=("--user", "a", "--count", 20, "--candidates", 10),
    )
    require_refused(done["long"], "user_id", "[INVALID_REQUEST]")
    require_refused(done["few"], "candidate_count", "[INVALID_REQUEST]")


async def test_without_tables_the_index_alone_answers(plain: Served) -> None:
    """A release that `build` made has no users: with an embedding the answer is that of Retrieve,
    whole and with no degradation; without one nothing can be proposed."""
    query = plain.catalogue.queries[2]
    nearest = await plain.client.retrieve(query, 520)
    left_out = nearest.ids[:3]

    answer = await plain.client.recommend("7", user_embedding=query, exclude_seen=True)
    without = await plain.client.recommend(user_embedding=query, excluded_ids=left_out)
    recent = await plain.client.recommend(user_embedding=query, recent_ids=[5, 6])

    assert [*answer.ids] == [*recent.ids] == [*nearest.ids[:20]]
    assert [*without.ids] == [*nearest.ids[3:23]]
    assert {*answer.sources} == {("index",)}
    for each in (answer, without, recent):
        assert (each.certificate.degradations, each.certificate.coverage) == ((), 1.0)
        assert not each.is_ranked.any()
    for options in ({}, {"recent_ids": [5, 6]}):
        with pytest.raises(UnknownUser):
            await plain.client.recommend("7", **options)  # type: ignore[arg-type]


@pytest.fixture
def cluster_map(release: TastedRelease) -> ClusterMap:
    """The map of the release."""
    nodes = (Node(name="node-0", address="a:1"),)
    return map_of_release(read_manifest(release.path), nodes, 1, cluster="c", epoch=1)


def test_tables_of_another_release_are_refused(
    release: TastedRelease, cluster_map: ClusterMap, tmp_path: Path
) -> None:
    """A release whose name, kind of ids or dimension is not what the map serves, or that is none."""
    served = cluster_map.releases[0]
    renamed = replace(cluster_map, active_release="other", releases=(replace(served, name="other"),))
    wider = replace(cluster_map, releases=(replace(served, dimension=9),))
    for other in (renamed, wider, replace(cluster_map, id_kind=IdKind.INTEGER)):
        with pytest.raises(InputRefused, match="release: "):
            open_tables(release.path, other)
    with pytest.raises(InputRefused, match="not a release"):
        open_tables(tmp_path, cluster_map)
    assert open_tables(None, cluster_map) == {}
    tables = open_tables(release.path, cluster_map)[release.name]
    user = tables.user(release.users[1])
    assert user is not None
    assert np.array_equal(user.embedding[0], release.embeddings[1])
