"""`rangefinder up` with a release that has a ranker: started, waited for, kept running, stopped."""

import signal
from pathlib import Path

import pytest

from rangefinder.documents import from_yaml
from rangefinder.edge.readiness import ReadinessProbe
from rangefinder.storage import read_text
from ranker_service.card import MODEL
from ranker_service.config import RankerConfig
from router.config import RouterConfig
from tests.kit.commands import rangefinder_all, require_refused
from tests.kit.damage import flip_bit
from tests.kit.processes import free_port, running_cluster
from tests.kit.ranked_world import build_ranked_release
from tests.kit.waiting import until_async

RESTART_S_MAX = 30.0


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_ranked_release(tmp_path_factory.mktemp("up_ranker"))


async def test_a_ranker_runs_beside_its_router(release: Path, tmp_path: Path) -> None:
    """READY means that it answers, and the router knows it; killed, it comes back; then all stop."""
    data_dir = tmp_path / "cluster"
    async with running_cluster(release, data_dir, node_count=1) as cluster:
        ranker = from_yaml(read_text(data_dir / "config" / "ranker-0.yaml"), RankerConfig, "ranker")
        router = from_yaml(read_text(data_dir / "config" / "router-0.yaml"), RouterConfig, "router")
        assert (ranker.listen,) == router.rankers
        assert release == router.release == ranker.release
        async with ReadinessProbe(ranker.listen) as probe:
            assert await probe.is_ready(5.0)
            killed = cluster.pid("ranker-0")
            cluster.signal("ranker-0", signal.SIGKILL)

            async def is_back() -> bool:
                has_pid = (data_dir / "run" / "ranker-0.pid").exists()
                return has_pid and cluster.pid("ranker-0") != killed and await probe.is_ready(1.0)

            await until_async(is_back, within_s=RESTART_S_MAX, what="the ranker is back")
    assert not list((data_dir / "run").glob("*.pid"))
    ended = {name: draining_at(cluster.output(name), name) for name in ("router-0", "ranker-0")}
    assert ended["router-0"] <= ended["ranker-0"]


def draining_at(output: str, name: str) -> str:
    """When a process was told to end, by the last line of its log that says so."""
    event = f"{name.partition('-')[0]}_draining"
    return next(line.split()[0] for line in reversed(output.splitlines()) if event in line)


async def test_a_ranker_that_cannot_be_served_keeps_up_from_starting(tmp_path: Path) -> None:
    """A damaged model ends `up` with the file's name, before READY."""
    release = build_ranked_release(tmp_path)
    flip_bit(release / MODEL, 800)
    command = ("up", "--release", release, "--data-dir", tmp_path / "cluster", "--port", free_port())
    done = await rangefinder_all({"up": command})
    require_refused(done["up"], "ranker-0: ")
    assert "model.onnx: checksum mismatch" in done["up"].stderr
