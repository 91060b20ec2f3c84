"""The yardstick of throughput: what it leaves out is the way, not the work."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.naive import node, router
from rangefinder.edge.columns import vector_of
from rangefinder.release import read_manifest
from rangefinder.v1.recommendation_pb2 import RetrieveRequest, RetrieveResponse
from shard_server.segment import Search
from shard_server.shard import Shard, search_shards
from tests.kit.small_release import build_small_release


async def test_a_call_a_shard_answers_as_the_product_does(tmp_path: Path) -> None:
    """Keys and scores of every query are those of a search over all shards, bit for bit."""
    release = build_small_release(tmp_path)
    manifest = read_manifest(release.path)
    shards = [Shard.open(release.path, manifest, about) for about in manifest.shards]
    nodes = [node(release.path, about.name) for about in manifest.shards]

    def method(number: int) -> Any:
        async def call(content: bytes, timeout: float) -> bytes:
            del timeout
            return await nodes[number](content, None)

        return call

    ask = router([method(number) for number in range(len(nodes))])
    for query in release.queries[:20]:
        request = RetrieveRequest(query=vector_of(query), item_count=10, search_width=20)
        found = RetrieveResponse.FromString(await ask(request.SerializeToString(), None))
        search = Search(queries=query[None], wanted=np.array([10]), width=20)
        truth = search_shards(shards, search)
        assert truth.keys[0].view(np.int64).tolist() == list(found.items.integers)
        assert truth.scores[0].tolist() == list(found.scores)
