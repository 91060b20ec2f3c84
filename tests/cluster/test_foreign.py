"""What strangers build on: the protos alone, server reflection, and the health of processes."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest as Question

from tests.kit import foreign_client, oracle
from tests.kit.calls import failure_of
from tests.kit.served import Served

PROTOS = Path(__file__).resolve().parents[2] / "protos"
CLIENT = Path(foreign_client.__file__).resolve()
LIBRARIES = Path(grpc.__file__).resolve().parents[1]  # Where gRPC is, protobuf is, too.
CLIENT_S_MAX = 60

PUBLIC = (
    *("rangefinder.v1.RecommendationService", "rangefinder.v1.ItemService"),
    *("rangefinder.v1.UserService", "rangefinder.v1.ClusterService"),
)
COMMON = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
PROBES = ("", "startup", "liveness", "readiness")


def generate(out: Path) -> Path:
    """Generate the code of the public protos, as any team would."""
    out.mkdir()
    files = sorted((PROTOS / "rangefinder" / "v1").glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}"]
    command += [f"--python_out={out}", f"--grpc_python_out={out}", *map(str, files)]
    subprocess.run(command, check=True, capture_output=True, timeout=CLIENT_S_MAX)
    return out


async def test_a_client_needs_the_protos_alone(plain: Served, tmp_path: Path) -> None:
    """A program with generated code and nothing of ours gets the true answer and its certificate."""
    generated = await asyncio.to_thread(generate, tmp_path / "generated")
    catalogue, query = plain.catalogue, plain.catalogue.queries[5]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(CLIENT)),
        *(str(generated), str(LIBRARIES), plain.cluster.address),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
    )
    async with asyncio.timeout(CLIENT_S_MAX):
        output, errors = await program.communicate(json.dumps(query.tolist()).encode())
    assert 0 == program.returncode, errors.decode()
    said = json.loads(output)

    scores = oracle.scores(catalogue.metric, catalogue.rows, query)
    truth = oracle.best(scores, catalogue.keys, 20)
    assert [catalogue.ids[row] for row, _ in truth] == said["ids"] == said["read"]
    assert [score for _, score in truth] == np.array(said["scores"], np.float32).tolist()
    assert {
        "epoch": 1,
        "release": plain.release.name,
        "counts": [6_000, 6_000],
        "missed": 0,
        "stages": ["queue", "retrieval", "merge"],
    } == {name: said[name] for name in ("epoch", "release", "counts", "missed", "stages")}
    # By the index, so perhaps not every one of the nearest.
    assert 20 == len(said["recommended"])
    assert len(set(said["recommended"]) & set(said["ids"])) >= 18
    assert "UNIMPLEMENTED" == said["failure"]["code"]


async def reflect(
    channel: grpc.aio.Channel, question: Question
) -> reflection_pb2.ServerReflectionResponse:
    """One answer of server reflection."""
    call = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Question.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )(timeout=10)
    await call.write(question)
    answer = await call.read()
    await call.done_writing()
    assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
    return answer


async def test_reflection_lists_what_a_router_serves(plain: Served) -> None:
    """Tools such as grpcurl see the public services, their messages, and no private ones."""
    listed = await reflect(plain.channel, Question(list_services=""))
    names = [service.name for service in listed.list_services_response.service]
    assert sorted([*PUBLIC, *COMMON]) == sorted(names)
    for symbol in (*PUBLIC, "rangefinder.v1.RetrieveRequest", "rangefinder.v1.Certificate"):
        described = await reflect(plain.channel, Question(file_containing_symbol=symbol))
        content = described.file_descriptor_response.file_descriptor_proto
        files = [FileDescriptorProto.FromString(each) for each in content]
        defined = {
            f"{file.package}.{name}"
            for file in files
            for name in (
                *(service.name for service in file.service),
                *(message.name for message in file.message_type),
            )
        }
        assert symbol in defined


async def health_of(channel: grpc.aio.Channel, service: str) -> Any:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    return await check(health_pb2.HealthCheckRequest(service=service), timeout=10)


@pytest.mark.parametrize("service", PROBES)
async def test_health_is_answered_for_every_probe(plain: Served, service: str) -> None:
    """Router and nodes are SERVING for the empty name, startup, liveness and readiness."""
    cluster_map = await plain.client.cluster_map()
    assert 2 == len(cluster_map.nodes)
    addresses = [plain.cluster.address, *(node.address for node in cluster_map.nodes)]
    for address in addresses:
        async with grpc.aio.insecure_channel(address) as channel:
            answer = await health_of(channel, service)
            assert health_pb2.HealthCheckResponse.SERVING == answer.status, address
            watch = channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                health_pb2.HealthCheckRequest.SerializeToString,
                health_pb2.HealthCheckResponse.FromString,
            )
            call: Any = watch(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert health_pb2.HealthCheckResponse.SERVING == (await call.read()).status
            call.cancel()


async def test_health_of_a_service_that_is_not_there(plain: Served) -> None:
    """A probe with a wrong name is NOT_FOUND, not healthy."""
    failure = await failure_of(health_of(plain.channel, "no.such.Service"))
    assert "NOT_FOUND" == failure.code
