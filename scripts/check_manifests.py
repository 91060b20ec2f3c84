"""Checks the Kubernetes manifests without a cluster: each by its schema, all against each other.

Every kustomization.yaml under k8s/ is followed to its resources and generated ConfigMaps. Prints
one line per fault. It applies no patches: what an overlay changes is checked as it stands in the
base.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from rangefinder.documents import from_yaml
from rangefinder.errors import InputRefused
from rangefinder.storage import read_text
from ranker_service.config import RankerConfig
from router.config import RouterConfig
from shard_server.config import NodeConfig

ROOT = Path(__file__).resolve().parent.parent

KUBERNETES_VERSION = "1.30"  # The oldest that they are checked against.
Config = NodeConfig | RankerConfig | RouterConfig
CONFIG_KINDS: dict[str, type[Config]] = {
    "node.yaml": NodeConfig,
    "ranker.yaml": RankerConfig,
    "router.yaml": RouterConfig,
}
CLAIMS = {"rangefinder-release"}  # Volumes that overlays bring.
PROBES = ("startup", "readiness", "liveness")  # Each asks the health service of its name.


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A Deployment or StatefulSet, and what its pods are."""

    name: str
    spec: dict[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.spec["template"].get("metadata", {}).get("labels", {})
        return labels

    @property
    def pod(self) -> dict[str, Any]:
        pod: dict[str, Any] = self.spec["template"]["spec"]
        return pod

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    def is_selected_by(self, selector: dict[str, str]) -> bool:
        return bool(selector) and selector.items() <= self.labels.items()


@dataclass(slots=True)
class Manifests:
    """What the kustomizations name: objects by kind and name, and files of generated ConfigMaps."""

    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    config_files: dict[str, dict[str, Path]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def of_kind(self, *kinds: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and spec of each object of these kinds."""
        for (kind, name), content in self.objects.items():
            if kind in kinds:
                yield name, content["spec"]

    @property
    def workloads(self) -> list[Workload]:
        found = self.of_kind("Deployment", "StatefulSet")
        return [Workload(name=name, spec=spec) for name, spec in found]


def load(root: Path) -> Manifests:
    """Follow every kustomization below k8s/; what cannot be read is a fault."""
    manifests, visited = Manifests(), set[Path]()
    for file in sorted((root / "k8s").rglob("kustomization.yaml")):
        load_folder(file.parent.resolve(), root.resolve(), manifests, visited)
    if not manifests.objects:
        manifests.faults.append(f"{root / 'k8s'}: no manifests")
    return manifests


def load_folder(folder: Path, root: Path, manifests: Manifests, visited: set[Path]) -> None:
    if folder in visited:
        return
    visited.add(folder)
    listing = folder / "kustomization.yaml"
    content = read_documents(listing)[0]
    for generator in content.get("configMapGenerator", []):
        files = {name: folder / name for name in generator["files"]}
        manifests.config_files[generator["name"]] = files
    for resource in content.get("resources", []):
        path = (folder / resource).resolve()
        if path.is_dir():
            load_folder(path, root, manifests, visited)
        elif path.is_file():
            load_file(path, path.relative_to(root).as_posix(), manifests)
        else:
            manifests.faults.append(f"{listing.relative_to(root)}: no resource {resource}")


def load_file(path: Path, source: str, manifests: Manifests) -> None:
    for content in read_documents(path):
        if fault := schema_fault(content):
            manifests.faults.append(f"{source}: {fault}")
        else:
            manifests.objects[content["kind"], content["metadata"]["name"]] = content


def read_documents(path: Path) -> list[dict[str, Any]]:
    """The YAML documents of a file. Raises InputRefused."""
    try:
        return list(yaml.safe_load_all(read_text(path)))
    except yaml.YAMLError as error:
        raise InputRefused(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def schema_fault(content: dict[str, Any]) -> str | None:
    """What the schema of its kind says against an object."""
    try:
        kubernetes_validate.validate(content, KUBERNETES_VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        place = ".".join(str(part) for part in error.path)
        return f"{content['kind']} {content['metadata']['name']}: {place}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return str(error.message)
    except KeyError as error:
        return f"no {error} in an object"
    return None


def all_faults(root: Path) -> list[str]:
    """Every fault of the manifests of a checkout; where one breaks its schema, those alone."""
    manifests = load(root)
    if manifests.faults:
        return manifests.faults
    faults = [*config_faults(manifests), *selector_faults(manifests)]
    for workload in manifests.workloads:
        found = (
            *volume_faults(workload, manifests),
            *service_faults(workload, manifests),
            *port_faults(workload),
            *variable_faults(workload),
            *security_faults(workload),
            *drain_faults(workload, manifests),
            *map_faults(workload, manifests),
            *release_faults(workload, manifests),
            *ranker_faults(workload, manifests),
        )
        faults += [f"{workload.name}: {fault}" for fault in found]
    return faults


def config_faults(manifests: Manifests) -> Iterator[str]:
    """Configuration that its process would refuse."""
    for files in manifests.config_files.values():
        for path in files.values():
            try:
                read_config(path)
            except InputRefused as error:
                yield str(error)


def read_config(path: Path) -> Config:
    """Parse a configuration file as its process does. Raises InputRefused."""
    kind = CONFIG_KINDS.get(path.name)
    if kind is None:
        raise InputRefused(f"{path}: no process reads a file of this name")
    return from_yaml(read_text(path), kind, str(path))


def selector_faults(manifests: Manifests) -> Iterator[str]:
    """Services, disruption budgets and workloads that select no pods."""
    workloads = manifests.workloads
    for workload in workloads:
        if not workload.is_selected_by(workload.spec["selector"]["matchLabels"]):
            yield f"{workload.name}: its selector is not of its own pods"
    for name, spec in manifests.of_kind("PodDisruptionBudget"):
        if not any(w.is_selected_by(spec["selector"]["matchLabels"]) for w in workloads):
            yield f"PodDisruptionBudget {name}: selects no pods"
    for name, spec in manifests.of_kind("Service"):
        if not any(w.is_selected_by(spec.get("selector", {})) for w in workloads):
            yield f"Service {name}: selects no pods"


def service_faults(workload: Workload, manifests: Manifests) -> Iterator[str]:
    """Ports that a Service sends to and the pods lack; a StatefulSet without headless Service."""
    names = {port.get("name") for c in workload.containers for port in c.get("ports", [])}
    for name, spec in manifests.of_kind("Service"):
        if workload.is_selected_by(spec.get("selector", {})):
            targets = {str(port.get("targetPort")) for port in spec["ports"]}
            yield from (f"no port {port} for Service {name}" for port in sorted(targets - names))
    if headless := workload.spec.get("serviceName"):
        service = manifests.objects.get(("Service", headless))
        if service is None or service["spec"].get("clusterIP") != "None":
            yield f"no headless Service {headless}"


def volume_faults(workload: Workload, manifests: Manifests) -> Iterator[str]:
    """Mounts without a volume and the reverse; ConfigMaps, claims and files that are not there."""
    volumes = {volume["name"]: volume for volume in workload.pod.get("volumes", [])}
    mounts = [mount for c in workload.containers for mount in c.get("volumeMounts", [])]
    mounted = {mount["name"] for mount in mounts}
    yield from (f"no volume {name}" for name in sorted(mounted - volumes.keys()))
    yield from (f"volume {name} is mounted nowhere" for name in sorted(volumes.keys() - mounted))
    for volume in volumes.values():
        config_map = volume.get("configMap", {}).get("name")
        if config_map is not None and config_map not in manifests.config_files:
            yield f"no ConfigMap {config_map}"
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim is not None and claim not in CLAIMS:
            yield f"no claim {claim}"
    for container in workload.pod["containers"]:
        if config_path(container, workload, manifests) is None:
            yield f"{container['name']}: no ConfigMap holds its --config"


def config_path(container: dict[str, Any], workload: Workload, manifests: Manifests) -> Path | None:
    """The file of the checkout that a container's --config is."""
    volumes = {volume["name"]: volume for volume in workload.pod.get("volumes", [])}
    folder, _, name = (option(container, "--config") or "").rpartition("/")
    for mount in container.get("volumeMounts", []):
        if mount["mountPath"] == folder:
            config_map = volumes.get(mount["name"], {}).get("configMap", {}).get("name")
            return manifests.config_files.get(config_map, {}).get(name)
    return None


def configured(workload: Workload, manifests: Manifests) -> Iterator[tuple[dict[str, Any], Config]]:
    """The containers that read a configuration, and what it says; config_faults tells of others."""
    for container in workload.pod["containers"]:
        path = config_path(container, workload, manifests)
        with suppress(InputRefused):
            if path is not None:
                yield container, read_config(path)


def option(container: dict[str, Any], name: str) -> str | None:
    """The argument that follows an option."""
    arguments: list[str] = container.get("args", [])
    place = arguments.index(name) + 1 if name in arguments else len(arguments)
    return arguments[place] if place < len(arguments) else None


def port_faults(workload: Workload) -> Iterator[str]:
    """Ports that are listened on or probed, but not declared; probes of another health service."""
    for container in workload.pod["containers"]:
        declared = {port["containerPort"] for port in container.get("ports", [])}
        for name in ("--listen", "--metrics"):
            address = option(container, name) or ""
            if address not in {f"0.0.0.0:{port}" for port in declared}:
                yield f"{name} {address}: not a declared port on 0.0.0.0"
        for probe in PROBES:
            asked = container.get(f"{probe}Probe", {}).get("grpc", {})
            if asked.get("service") != probe:
                yield f"{probe}Probe does not ask the health service {probe}"
            elif asked["port"] not in declared:
                yield f"{probe}Probe asks port {asked['port']}, which is not declared"


def variable_faults(workload: Workload) -> Iterator[str]:
    """$(NAME) in an argument that no variable of the container fills."""
    for container in workload.containers:
        known = {variable["name"] for variable in container.get("env", [])}
        for argument in container.get("args", []):
            for name in re.findall(r"\$\((\w+)\)", argument):
                if name not in known:
                    yield f"{container['name']}: nothing sets $({name})"


def security_faults(workload: Workload) -> Iterator[str]:
    """What the restricted Pod Security Standard refuses, and a root file system that is writable."""
    pod = workload.pod.get("securityContext", {})
    if pod.get("runAsNonRoot") is not True or pod.get("runAsUser", 0) == 0:
        yield "pods may run as root"
    if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccompProfile is not RuntimeDefault"
    for container in workload.containers:
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']}: privileges may be escalated"
        if context.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"{container['name']}: capabilities are not dropped"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']}: the root file system is writable"


def drain_faults(workload: Workload, manifests: Manifests) -> Iterator[str]:
    """Pods that are killed before they have drained."""
    grace_s = workload.pod.get("terminationGracePeriodSeconds", 30)
    for container, config in configured(workload, manifests):
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        announced_s = 0.0 if isinstance(config, NodeConfig) else config.drain_announce_s
        needed_s = announced_s + config.drain_s + pause.get("seconds", 0)
        if needed_s >= grace_s:
            yield f"{container['name']}: needs {needed_s:g} s to end, and is killed after {grace_s}"


def map_faults(workload: Workload, manifests: Manifests) -> Iterator[str]:
    """A cluster map of other nodes than there are, or in another place than it is read from."""
    makers = [c for c in workload.pod.get("initContainers", []) if "--out" in c.get("args", [])]
    for _, config in configured(workload, manifests):
        if isinstance(config, RankerConfig):
            continue  # It knows no map.
        if str(config.map_file) not in {option(maker, "--out") for maker in makers}:
            yield f"nothing writes {config.map_file}"
    for maker in makers:
        name = option(maker, "--name") or ""
        nodes = manifests.objects.get(("StatefulSet", name.removesuffix("-{index}")))
        if nodes is None:
            yield f"{maker['name']}: no StatefulSet makes nodes of name {name}"
            continue
        listen = option(nodes["spec"]["template"]["spec"]["containers"][0], "--listen") or ""
        expected = {
            "--nodes": str(nodes["spec"].get("replicas", 1)),
            "--address": f"{name}.{nodes['spec']['serviceName']}:{listen.rpartition(':')[2]}",
        }
        for key, value in expected.items():
            if option(maker, key) != value:
                yield f"{maker['name']}: {key} is {option(maker, key)}, not {value}"


def release_faults(workload: Workload, manifests: Manifests) -> Iterator[str]:
    """Containers whose release is mounted elsewhere than they read it, or not at all."""
    claims = {
        volume["name"]
        for volume in workload.pod.get("volumes", [])
        if volume.get("persistentVolumeClaim", {}).get("claimName") in CLAIMS
    }
    for container, config in configured(workload, manifests):
        wanted = option(container, "--release") or str(config.release)
        mounts = container.get("volumeMounts", [])
        if wanted not in {mount["mountPath"] for mount in mounts if mount["name"] in claims}:
            yield f"{container['name']}: no release is mounted at {wanted}"


def ranker_faults(workload: Workload, manifests: Manifests) -> Iterator[str]:
    """Routers that ask rankers which no Service leads to."""
    known = {
        f"{name}:{port['port']}"
        for name, spec in manifests.of_kind("Service")
        for port in spec["ports"]
        if spec.get("selector", {}).get("app.kubernetes.io/component") == "ranker"
    }
    for container, config in configured(workload, manifests):
        if isinstance(config, RouterConfig):
            address = option(container, "--ranker")
            if address not in known:
                yield f"{container['name']}: no Service is at its --ranker {address}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to look at")
    try:
        faults = all_faults(parser.parse_args(arguments).root)
    except InputRefused as error:
        faults = [str(error)]
    if faults:
        raise SystemExit("\n".join(f"check_manifests: {fault}" for fault in faults))
    print("check_manifests: in order", file=sys.stderr)


if __name__ == "__main__":
    main()
