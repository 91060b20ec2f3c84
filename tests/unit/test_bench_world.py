"""Generated worlds: repeatable, in blocks, and with queries that are none of the items."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rangefinder.cli.bench.world import GeneratedSource
from shard_server.build.source import BLOCK_ROWS


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3_000), st.integers(2, 24), st.integers(0, 2**32))
def test_the_same_arguments_give_the_same_world(count: int, dimension: int, seed: int) -> None:
    """Rows and queries repeat bit for bit, and another seed gives others."""
    one, again, other = (
        GeneratedSource(row_count=count, dimension=dimension, seed=each)
        for each in (seed, seed, seed + 1)
    )
    rows = [np.concatenate([block.rows for block in each.blocks()]) for each in (one, again, other)]
    assert rows[0].shape == (count, dimension) and rows[0].dtype == np.float32
    assert np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[0], rows[2])
    assert np.array_equal(one.queries(20), again.queries(20))


def test_a_world_comes_in_blocks() -> None:
    """No block is larger than the builder takes, none repeats another, and their rows add up."""
    world = GeneratedSource(row_count=2 * BLOCK_ROWS + 5, dimension=4, seed=1)
    blocks = [block.rows for block in world.blocks()]
    assert [BLOCK_ROWS, BLOCK_ROWS, 5] == [len(block) for block in blocks]
    assert not np.array_equal(blocks[0], blocks[1])
    assert list(range(world.row_count)) == list(world.ids())


def test_queries_are_near_items_but_none_of_them() -> None:
    """A query's nearest item is nearer than most pairs of items are, and at a distance."""
    world = GeneratedSource(row_count=4_000, dimension=16, seed=2)
    rows = next(world.blocks()).rows
    between = np.linalg.norm(rows[:500, None] - rows[None, 500:1_000], axis=2)
    nearest = np.linalg.norm(world.queries(100)[:, None] - rows[None], axis=2).min(axis=1)
    assert nearest.min() > 0
    assert np.median(nearest) < 0.5 * np.median(between)
