"""`make demo`: from lines of "user, item" to recommendations by a cluster that loses parts and says so.

Everything it does is a `rangefinder` command that it prints first; what it makes lies in demo/.
`make demo INTERACTIONS=FILE TITLES=FILE` does it with a file of yours.
"""

import argparse
import asyncio
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.marketplace import generate
from rangefinder import Client, RangefinderError
from rangefinder.cli.output import certificate_in_words, print_line
from scripts.demo_users import ShownUser, Trained, in_words
from scripts.stage import NODE_COUNT, ROOT, DemoFailed, Stage, free_port, tell
from training.evaluation import recall_by_score

SHARD_COUNT = 4
SHOWN_COUNT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Files to learn from."""

    interactions: Path
    titles: Path | None
    titles_id_offset: int = 0


def main() -> None:
    """Run the demo; an expected failure is one line."""
    source, folder = arguments()
    began_s = time.monotonic()
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        asyncio.run(demonstrate(source, Stage(folder, free_port())))
    except (RangefinderError, DemoFailed) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted")
    print_line(f"\nDone in {time.monotonic() - began_s:.0f} s. What was made lies in {folder}.")


def arguments() -> tuple[Source | None, Path]:
    """Files to learn from (None: the generated marketplace), and the folder for all that is made."""
    parser = argparse.ArgumentParser(prog="python -m scripts.demo", description=__doc__)
    parser.add_argument("--interactions", type=Path, help="a file that `rangefinder train` reads")
    parser.add_argument("--titles", type=Path, help="titles of its items")
    parser.add_argument("--titles-id-offset", type=int, default=0, help="as of `rangefinder train`")
    parser.add_argument("--folder", type=Path, default=ROOT / "demo", help="removed first")
    given = parser.parse_args()
    if given.interactions is None:
        if given.titles is not None:
            parser.error("TITLES goes with INTERACTIONS")
        return None, given.folder
    source = Source(
        interactions=given.interactions.resolve(),
        titles=given.titles and given.titles.resolve(),
        titles_id_offset=given.titles_id_offset,
    )
    return source, given.folder.resolve()


async def demonstrate(source: Source | None, stage: Stage) -> None:
    """Every step in order."""
    await train(source or make_marketplace(stage.folder), stage)
    trained = Trained.read(stage.release)
    parts = "a router and a ranker" if trained.has_ranker else "a router and no ranker"
    tell(f"Served by {NODE_COUNT} nodes, {parts}, each a process of its own")
    async with stage.cluster(), Client(stage.address, deadline_s=5) as client:
        for user in trained.users:
            tell(await in_words(client, user))
            await recommend(stage, user)
        tell("Neighbours of an item in the space of the embeddings")
        await stage.ask("retrieve", "--like", trained.users[0].had[0], "--count", SHOWN_COUNT)
        await show_recall(client, trained)
        await lose_a_node(client, stage, trained.users[0])
        if trained.has_ranker:
            await lose_the_ranker(client, stage, trained.users[0])
        else:
            tell("No ranker to lose: none was surely better than the order of retrieval, see above")
        await stage.ask("status")
    tell("Everything is stopped")


def make_marketplace(folder: Path) -> Source:
    """The generated world as files."""
    world = generate()
    users, had = world.users.max(), len(np.unique(world.items))
    tell(
        f"A generated marketplace of {len(world.titles):,} titled items: {len(world.users):,}"
        f" interactions of {users:,} users with {had:,} of them"
    )
    world.write(folder)
    return Source(interactions=folder / "interactions.csv", titles=folder / "titles.csv")


async def train(source: Source, stage: Stage) -> None:
    """From the files to a release."""
    tell("Trained: embeddings of users and items, tables, a ranker; indexed, calibrated, checksummed")
    options: list[object] = ["--interactions", source.interactions]
    if source.titles is not None:
        options += ["--titles", source.titles]
    if source.titles_id_offset:
        options += ["--titles-id-offset", source.titles_id_offset]
    await stage.run("train", *options, "--shards", SHARD_COUNT, "--out", stage.release)


async def recommend(stage: Stage, user: ShownUser) -> None:
    await stage.ask("recommend", "--user", user.id, "--count", SHOWN_COUNT)


async def show_recall(client: Client, trained: Trained) -> None:
    """Recall@10 at the calibrated width against exact searches of the same cluster."""
    queries = trained.embeddings
    tell(f"How much an index finds of what there is: the embeddings of {len(queries)} users")
    found = await client.retrieve_batch(queries, 10, minimum_coverage=1)
    truth = await client.retrieve_batch(queries, 10, exact=True, minimum_coverage=1)
    shape = (len(queries), -1)
    recall = recall_by_score(found.scores.reshape(shape), truth.scores.reshape(shape))
    print_line(f"recall@10 against exact search: {recall:.4f}")
    print_line(f"certificate: {certificate_in_words(found.certificate)}")


async def lose_a_node(client: Client, stage: Stage, user: ShownUser) -> None:
    """Kill a node, ask, wait until it is back, ask again."""

    async def is_whole() -> bool:
        answer = await client.recommend(user.id, SHOWN_COUNT, exclude_seen=True)
        return answer.certificate.coverage == 1

    async def is_lost() -> bool:
        return not await is_whole()

    stage.kill("node-1")
    await stage.until(is_lost, "node-1 is missed")
    tell("The next answer says what it missed")
    await recommend(stage, user)
    tell("`rangefinder up` starts it again after two seconds; then the answer is whole")
    await stage.until(is_whole, "node-1 is back")
    await recommend(stage, user)


async def lose_the_ranker(client: Client, stage: Stage, user: ShownUser) -> None:
    """Kill the ranker, ask, wait until it is back, ask again."""

    async def is_ranked() -> bool:
        answer = await client.recommend(user.id, SHOWN_COUNT, exclude_seen=True)
        return bool(answer.ranker_model)

    async def is_unranked() -> bool:
        return not await is_ranked()

    stage.kill("ranker-0")
    await stage.until(is_unranked, "ranker-0 is missed")
    tell("The next answer is in the order of retrieval, and says so")
    await recommend(stage, user)
    tell("It comes back as the node did; then the answer is ranked")
    await stage.until(is_ranked, "ranker-0 is back")
    await recommend(stage, user)


if __name__ == "__main__":
    main()
