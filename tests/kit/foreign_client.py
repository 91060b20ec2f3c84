"""A client that somebody else wrote: it has the protos, gRPC and protobuf, and nothing of ours.

    python -I -S foreign_client.py GENERATED SITE_PACKAGES ADDRESS < QUERY.json > ANSWERS.json

A program of its own: started without site packages, so that what is installed there by a link, such as
this checkout, is out of its reach. It is told where its generated code and its libraries are.
"""

import importlib
import json
import sys
from typing import Any


def main(generated: str, libraries: str, address: str) -> None:
    """Ask a cluster and print what it said, as JSON."""
    assert not [path for path in sys.path if "site-packages" in path]
    sys.path += [generated, libraries]
    require_strangers(generated)
    import grpc

    from rangefinder.v1 import (
        item_pb2,
        item_pb2_grpc,
        recommendation_pb2,
        recommendation_pb2_grpc,
        types_pb2,
    )

    assert recommendation_pb2.__file__.startswith(generated)
    query = json.load(sys.stdin)
    with grpc.insecure_channel(address) as channel:
        recommendations: Any = recommendation_pb2_grpc.RecommendationServiceStub(channel)
        items: Any = item_pb2_grpc.ItemServiceStub(channel)
        vector = types_pb2.Vector(values=query)
        request = recommendation_pb2.RetrieveRequest(query=vector, item_count=20, exact=True)
        answer = recommendations.Retrieve(request, timeout=10)
        read = items.GetItems(item_pb2.GetItemsRequest(items=answer.items), timeout=10)
        best = recommendations.Recommend(
            recommendation_pb2.RecommendRequest(user_embedding=vector), timeout=10
        )
        failure = {}
        try:
            recommendations.Explain(recommendation_pb2.ExplainRequest(), timeout=10)
        except grpc.RpcError as error:
            failure = {"code": error.code().name, "details": error.details()}
    certificate = answer.certificate
    said = {
        "ids": list(answer.items.integers),
        "scores": list(answer.scores),
        "read": [item.integer_id for item in read.items],
        "epoch": certificate.map_epoch,
        "release": certificate.release,
        "counts": [certificate.item_count, certificate.item_count_searched],
        "missed": len(certificate.missed_ranges),
        "stages": [timing.stage for timing in certificate.stage_timings],
        "recommended": [item.integer_id for item in best.items],
        "failure": failure,
    }
    json.dump(said, sys.stdout)


def require_strangers(generated: str) -> None:
    """The only `rangefinder` here is the generated one."""
    assert [f"{generated}/rangefinder"] == list(importlib.import_module("rangefinder").__path__)
    for name in ("rangefinder.client", "rangefinder.edge.wire", "router", "shard_server"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        raise AssertionError(f"{name} can be imported")


if __name__ == "__main__":
    main(*sys.argv[1:])
