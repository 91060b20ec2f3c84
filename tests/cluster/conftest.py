"""Clusters that the tests of this folder share: each is built and started when first asked for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.nasty_world import nasty_catalogue, plain_catalogue
from tests.kit.served import Release, Served, build, build_from, serving
from tests.kit.shelf import Shelf, make_shelf


async def _serve_nasty(folder: Path, metric: str, id_kind: str, seed: int) -> AsyncIterator[Served]:
    release = await build(nasty_catalogue(metric, id_kind, seed), folder, "--shards", 3)
    async with serving(release, folder / "cluster") as served:
        yield served


@pytest.fixture(scope="session")
async def ip_nasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Inner product; sparse ids of either sign."""
    async for served in _serve_nasty(tmp_path_factory.mktemp("ip"), "ip", "integer", 1):
        yield served


@pytest.fixture(scope="session")
async def cosine_nasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Cosine; text ids."""
    async for served in _serve_nasty(tmp_path_factory.mktemp("cosine"), "cosine", "text", 2):
        yield served


@pytest.fixture(scope="session")
async def l2_nasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Squared distance; ids whose ranges are ranges of keys."""
    async for served in _serve_nasty(tmp_path_factory.mktemp("l2"), "l2", "ordered", 3):
        yield served


@pytest.fixture(scope="session")
def nasty(ip_nasty: Served, cosine_nasty: Served, l2_nasty: Served) -> dict[str, Served]:
    """By metric."""
    return {"ip": ip_nasty, "cosine": cosine_nasty, "l2": l2_nasty}


@pytest.fixture(scope="session")
async def plain_release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A generated world as it is, under inner product, in two shards."""
    return await build(
        plain_catalogue("ip", 6_000, 32, 4), tmp_path_factory.mktemp("plain"), "--shards", 2
    )


@pytest.fixture(scope="session")
async def plain(
    plain_release: Release, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """Its cluster."""
    async with serving(plain_release, tmp_path_factory.mktemp("plain_cluster") / "cluster") as served:
        yield served


@pytest.fixture(scope="session")
def shelf() -> Shelf:
    """Items with attributes."""
    return make_shelf()


@pytest.fixture(scope="session")
async def shelf_served(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Its cluster, of three shards."""
    folder = tmp_path_factory.mktemp("shelf")
    shelf.write(folder / "items.parquet")
    options = ("--items", folder / "items.parquet", "--metric", "cosine", "--shards", 3)
    release = await build_from(shelf.catalogue, folder, *options)
    async with serving(release, folder / "cluster") as served:
        yield served
