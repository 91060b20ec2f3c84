"""The manifests and the configuration files that they deploy, and that their check sees faults."""

import runpy
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from rangefinder.documents import from_yaml, to_values
from ranker_service.config import RankerConfig
from router.config import RouterConfig
from shard_server.config import NodeConfig

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "deploy/config"
NODES, RANKERS, ROUTERS, LISTING = (
    f"k8s/base/{name}.yaml" for name in ("nodes", "rankers", "routers", "kustomization")
)


check_manifests = runpy.run_path(str(ROOT / "scripts" / "check_manifests.py"))["main"]


def test_the_manifests_are_in_order() -> None:
    """The manifests of this checkout have no fault."""
    check_manifests(["--root", str(ROOT)])


# File, what stands there, what takes its place, what the check says.
FAULTS = {
    "unknown field": (NODES, "  replicas: 2", "  replica: 2", "'replica' was unexpected"),
    "wrong type": (ROUTERS, "replicas: 2", "replicas: two", "'two' is not of type"),
    "unknown kind": (ROUTERS, "kind: Deployment", "kind: Deploymint", "Deploymint"),
    "not YAML": (NODES, "spec:", "spec: {", "nodes.yaml: not YAML"),
    "missing resource": (LISTING, "- routers.yaml", "- proxies.yaml", "no resource proxies.yaml"),
    "no ConfigMap": (f"{CONFIG}/kustomization.yaml", "-node", "-x", "no ConfigMap rangefinder-node"),
    "no claim": (NODES, "claimName: rangefinder-release", "claimName: x", "no claim x"),
    "config elsewhere": (ROUTERS, "/etc/rangefinder/router", "/etc/router", "holds its --config"),
    "unmounted volume": (NODES, "- name: release\n", "- name: copy\n", "volume copy is mounted"),
    "wrong listen": (NODES, "0.0.0.0:7100", "0.0.0.0:7001", "0.0.0.0:7001: not a declared port"),
    "loopback": (NODES, "- 0.0.0.0:7100", "- 127.0.0.1:7100", "127.0.0.1:7100: not a declared"),
    "wrong probe": (NODES, "service: liveness", "service: readiness", "health service liveness"),
    "probed port": (ROUTERS, "7000, service: startup", "7, service: startup", "asks port 7,"),
    "target port": (ROUTERS, "targetPort: grpc", "targetPort: http", "no port http"),
    "selects nothing": (ROUTERS, "component: router\n  ports", "component: x\n  ports", "no pods"),
    "no headless Service": (NODES, "  clusterIP: None", "  type: ClusterIP", "no headless Service"),
    "root": (NODES, "runAsNonRoot: true", "runAsNonRoot: false", "may run as root"),
    "writable": (ROUTERS, "readOnlyRootFilesystem: true", "privileged: false", "is writable"),
    "killed early": (ROUTERS, "PeriodSeconds: 30", "PeriodSeconds: 15", "needs 15 s to end"),
    "fewer nodes": (NODES, "  replicas: 2", "  replicas: 3", "--nodes is 2, not 3"),
    "other address": (ROUTERS, "node:7100", "node:7200", "--address is"),
    "map elsewhere": (ROUTERS, "map/map.json", "map/nodes.json", "nothing writes"),
    "no ranker there": (RANKERS, "port: 7200", "port: 7201", "no Service is at its --ranker"),
    "other ranker": (
        ROUTERS,
        "-ranker:7200",
        "-scorer:7200",
        "at its --ranker rangefinder-scorer:7200",
    ),
    "release elsewhere": (RANKERS, "rangefinder/release,", "releases/1,", "no release is mounted at"),
    "no release": (
        ROUTERS,
        "- /var/lib/rangefinder/release\n            - --ranker",
        "- /r\n            - --ranker",
        "no release is mounted at /r",
    ),
    "unset variable": (NODES, "- name: POD_NAME", "- name: NAME", "nothing sets $(POD_NAME)"),
    "unknown key": (f"{CONFIG}/node.yaml", "drain_s:", "drain:", "drain: unknown key"),
    "bad value": (f"{CONFIG}/router.yaml", "drain_s: 10.0", "drain_s: -1", "drain_s"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_sees(tmp_path: Path, fault: str) -> None:
    """A manifest or configuration with a fault is refused, and the fault is named."""
    name, old, new, expected = FAULTS[fault]
    for folder in ("k8s", CONFIG):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    before = (tmp_path / name).read_text(encoding="utf-8")
    assert old in before  # Or the fault is not made.
    (tmp_path / name).write_text(before.replace(old, new), encoding="utf-8")

    with pytest.raises(SystemExit) as refusal:
        check_manifests(["--root", str(tmp_path)])

    lines = str(refusal.value).splitlines()
    assert any(expected in line for line in lines), lines
    assert all(line.startswith("check_manifests: ") for line in lines), lines


KINDS = {"node.yaml": NodeConfig, "ranker.yaml": RankerConfig, "router.yaml": RouterConfig}


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_the_configuration_files_say_the_defaults(
    name: str, kind: type[NodeConfig | RankerConfig | RouterConfig]
) -> None:
    """Every key stands in the file, with the value that a process has without it."""
    text = (ROOT / CONFIG / name).read_text(encoding="utf-8")
    assert kind() == from_yaml(text, kind, name)
    assert to_values(kind()) == yaml.safe_load(text)


@pytest.mark.parametrize("name", KINDS)
def test_every_key_is_commented(name: str) -> None:
    """Right above each key stands a comment; keys in a row may share one that names them.

    A key that only opens a nested block needs none.
    """
    uncommented, comment, is_right_above = [], "", False
    for line in (ROOT / CONFIG / name).read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#"):
            comment = comment + line if is_right_above else line
            is_right_above = True
            continue
        key = line.partition(":")[0].strip()
        opens_block = line.endswith(":")
        if not (is_right_above or opens_block or key in comment):
            uncommented.append(key)
        comment, is_right_above = (comment if line else ""), False
    assert not uncommented


def test_the_image_holds_every_package() -> None:
    """What pyproject.toml packages is let into the image's build, and copied there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]:
        package = pattern.rstrip("*")
        assert f"COPY {package} {package}" in dockerfile
        assert f"!{package}" in allowed
