"""What one field cannot know: names and ports used twice, ranges that overlap, paths that lead nowhere.

Each check takes the whole model and yields problems with their path; `spec.load` adds where that stands.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path as FilePath
from typing import TypeAlias

from cinderctl.core.diagnostics import Severity
from cinderctl.spec.diagnostics import SpecDiagnostic, nearest
from cinderctl.spec.paths import what_is_at
from cinderctl.spec.tree import Places
from cinderctl.spec.v1alpha1 import ClusterConfiguration
from cinderctl.spec.written import Path

__all__ = ["RESOURCE_KINDS", "check_files", "check_values"]

Problems: TypeAlias = "Iterator[SpecDiagnostic]"
_Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

# Kinds that a lifecycle pattern may name.
RESOURCE_KINDS = (
    "artifact",
    "binaries",
    "certificate",
    "cni",
    "command",
    "control_plane",
    "file",
    "image",
    "kubeconfig",
    "manifest",
    "network",
    "registry",
    "registry_hosting",
    "registry_mirror",
    "storage_class",
    "wasm_node",
    "worker",
)

_CONTROL_PLANE = "controlPlaneConfiguration"

# Ranges that Kubernetes accepts for no pod and no Service.
_RESERVED = {
    "loopback": ipaddress.ip_network("127.0.0.0/8"),
    "link-local addresses": ipaddress.ip_network("169.254.0.0/16"),
    "multicast": ipaddress.ip_network("224.0.0.0/4"),
}


def check_values(config: ClusterConfiguration, places: Places, kinds: Collection[str] = RESOURCE_KINDS) -> Problems:
    """Everything that the values alone tell. `kinds`: the resource kinds a lifecycle pattern may name."""
    yield from _names(config, places)
    yield from _subnets(config, places)
    yield from _ports(config, places)
    yield from _flags_set_twice(config)
    yield from _registry(config)
    yield from _wasm_nodes(config, places)
    yield from _lifecycle(config, kinds)


def check_files(config: ClusterConfiguration) -> Problems:
    """Files and directories of this machine that the spec names; `config` has them as absolute paths. (Manifests are
    read, and checked, by `spec.manifests`.)"""
    for index, file in enumerate(config.files):
        if file.encoding == "hostpath":
            yield from _must_be_file(FilePath(file.content), ("files", index, "content"))
    for index, artifact in enumerate(config.artifacts):
        if artifact.build is None:
            hint = "build it first, or say how with `build:`"
            yield from _must_be_file(FilePath(artifact.path), ("artifacts", index, "path"), hint)
        else:
            yield from _must_be_directory(artifact.build.directory, ("artifacts", index, "build", "directory"))
    if config.binaries.directory:
        yield from _must_be_directory(config.binaries.directory, ("binaries", "directory"))


def _must_be_file(path: FilePath, at: Path, hint: str = "paths are relative to the file that names them") -> Problems:
    match what_is_at(path):
        case "directory":
            yield SpecDiagnostic("is a directory, not a file", detail=f"{path}", path=at)
        case "something else":
            yield SpecDiagnostic("is no ordinary file", detail=f"{path}", path=at)
        case "nothing":
            yield SpecDiagnostic("no such file", detail=f"{path}", hint=hint, path=at)
        case "file":
            pass


def _must_be_directory(directory: str, at: Path) -> Problems:
    if what_is_at(FilePath(directory)) != "directory":
        hint = "paths are relative to the file that names them"
        yield SpecDiagnostic("no such directory", detail=directory, hint=hint, path=at)


def _names(config: ClusterConfiguration, places: Places) -> Problems:
    names = [(("artifacts", i, "name"), item.name) for i, item in enumerate(config.artifacts)]
    yield from _twice(names, "artifact", places)
    references = [(("artifacts", i, "reference"), item.reference) for i, item in enumerate(config.artifacts)]
    yield from _twice(references, "artifact reference", places)
    yield from _twice([(("files", i, "path"), item.path) for i, item in enumerate(config.files)], "file", places)


def _twice(items: Iterable[tuple[Path, str]], what: str, places: Places) -> Problems:
    first: dict[str, Path] = {}
    for path, value in items:
        if value in first:
            detail = f"{places.name(first[value])} has it already"
            yield SpecDiagnostic(f"{what} given twice", detail=detail, path=path, value=f'"{value}"')
        first.setdefault(value, path)


def _wasm_nodes(config: ClusterConfiguration, places: Places) -> Problems:
    if config.wasm_nodes is None:
        return
    if config.feature_gates.get("Krustlet") is False and config.wasm_nodes:
        yield SpecDiagnostic(
            "wasm nodes are switched off",
            detail="`featureGates.Krustlet: false` holds over the list of `wasmNodes`",
            hint="remove the gate to have the nodes that are listed",
            severity=Severity.WARNING,
            path=("featureGates", "Krustlet"),
        )
    first: dict[str, int] = {}
    for index, node in enumerate(config.effective_wasm_nodes):
        if not places.sound(("wasmNodes", index)):
            # Without the part that was at fault, its name is a guess.
            continue
        name = str(node.name)
        if name in first:
            yield SpecDiagnostic(
                f"two wasm nodes named `{name}`",
                detail=f"The other one is {places.name(('wasmNodes', first[name]))}",
                hint="give each a `name` of its own",
                path=("wasmNodes", index),
            )
        first.setdefault(name, index)


def _subnets(config: ClusterConfiguration, places: Places) -> Problems:
    plane = config.control_plane_configuration
    ranges: list[tuple[str, _Network]] = []
    for field, text in (("podSubnet", plane.pod_subnet), ("serviceSubnet", plane.service_subnet)):
        networks = [ipaddress.ip_network(part.strip()) for part in text.split(",")]
        ranges.extend((field, network) for network in networks)
        yield from _dual_stack(field, networks)
    for field, network in ranges:
        for name, reserved in _RESERVED.items():
            if network.version == 4 and network.overlaps(reserved):
                summary = f"`{field}` overlaps {name} ({reserved})"
                detail = "Kubernetes refuses such addresses for pods and Services"
                yield SpecDiagnostic(summary, detail=detail, path=(_CONTROL_PLANE, field), value=f'"{network}"')
        if field == "serviceSubnet" and not 12 <= network.prefixlen <= 28 and network.version == 4:
            detail = "The API server takes ranges from /12 to /28"
            yield SpecDiagnostic(
                "`serviceSubnet` has a bad size", detail=detail, path=(_CONTROL_PLANE, field), value=f'"{network}"'
            )
    for (field, network), (other, second) in combinations(ranges, 2):
        if network.version == second.version and network.overlaps(second):
            # The one that the files say is at fault, not a default.
            at = other if places.stands((_CONTROL_PLANE, other)) else field
            yield SpecDiagnostic(
                f"`{field}` overlaps `{other}`",
                detail=f"{network} and {second} share addresses",
                hint="choose ranges apart from each other",
                path=(_CONTROL_PLANE, at),
            )


def _dual_stack(field: str, networks: list[_Network]) -> Problems:
    versions = [network.version for network in networks]
    if len(networks) > 2 or len(set(versions)) != len(versions):
        detail = "Dual stack is one IPv4 and one IPv6 range, separated by a comma"
        yield SpecDiagnostic(f"too many ranges in `{field}`", detail=detail, path=(_CONTROL_PLANE, field))


def _ports(config: ClusterConfiguration, places: Places) -> Problems:
    """Ports of this machine that the spec fixes. On the process provider each wasm node has an address of its own."""
    plane = config.control_plane_configuration
    used: list[tuple[str, int, str, Path]] = []
    if config.registry_enabled:
        used.append(("127.0.0.1", config.local_registry_port, "TCP", ("localRegistryPort",)))
    if config.provider == "process":
        if plane.kube_api_server.bind_port:
            path: Path = (_CONTROL_PLANE, "kubeAPIServer", "bindPort")
            used.append(("127.0.0.1", plane.kube_api_server.bind_port, "TCP", path))
        for field, component in (
            ("kubeControllerManager", plane.kube_controller_manager),
            ("kubeScheduler", plane.kube_scheduler),
        ):
            port = component.extra_args.get("secure-port", "")
            if port.isdigit() and int(port):
                used.append(("127.0.0.1", int(port), "TCP", (_CONTROL_PLANE, field, "extraArgs", "secure-port")))
    else:
        for index, node in enumerate(config.effective_wasm_nodes):
            used.append(("0.0.0.0", node.port or 0, "TCP", ("wasmNodes", index, "port")))  # noqa: S104 - compared only
    for index, mapping in enumerate(config.extra_port_mappings):
        if mapping.host_port:
            at: Path = ("extraPortMappings", index, "hostPort")
            used.append((mapping.listen_address, mapping.host_port, mapping.protocol, at))
    for first, second in combinations(used, 2):
        if first[1:3] == second[1:3] and _same_address(first[0], second[0]):
            at, other = (first[3], second[3]) if not places.stands(second[3]) else (second[3], first[3])
            yield SpecDiagnostic(
                f"port {first[1]} is used twice",
                detail=f"{places.name(other)} has it already",
                hint="give one of them another port",
                path=at,
                value=str(second[1]),
            )


def _same_address(first: str, second: str) -> bool:
    addresses = {ipaddress.ip_address(first), ipaddress.ip_address(second)}
    return len(addresses) == 1 or any(address.is_unspecified for address in addresses)


def _flags_set_twice(config: ClusterConfiguration) -> Problems:
    plane = config.control_plane_configuration
    for name, component in (
        ("kubeAPIServer", plane.kube_api_server),
        ("kubeControllerManager", plane.kube_controller_manager),
        ("kubeScheduler", plane.kube_scheduler),
    ):
        if component.feature_gates and "feature-gates" in component.extra_args:
            yield SpecDiagnostic(
                "feature gates set twice",
                detail=f"{_CONTROL_PLANE}.{name}.featureGates sets the same flag",
                hint="keep `featureGates`",
                path=(_CONTROL_PLANE, name, "extraArgs", "feature-gates"),
            )
    if plane.kube_api_server.audit_policy is not None:
        policy = plane.kube_api_server.audit_policy
        if (policy["apiVersion"], policy["kind"]) != ("audit.k8s.io/v1", "Policy"):
            detail = f"It is {policy['apiVersion']} {policy['kind']}"
            path = (_CONTROL_PLANE, "kubeAPIServer", "auditPolicy")
            yield SpecDiagnostic("not an audit policy", detail=detail, hint="write audit.k8s.io/v1 Policy", path=path)
        if "audit-policy-file" in plane.kube_api_server.extra_args:
            yield SpecDiagnostic(
                "audit policy set twice",
                detail=f"{_CONTROL_PLANE}.kubeAPIServer.auditPolicy is the policy already",
                hint="keep one of the two",
                path=(_CONTROL_PLANE, "kubeAPIServer", "extraArgs", "audit-policy-file"),
            )


def _registry(config: ClusterConfiguration) -> Problems:
    port = config.local_registry_port
    local = {f"localhost:{port}", f"127.0.0.1:{port}", config.local_registry}
    for index, artifact in enumerate(config.artifacts):
        if not config.registry_enabled and artifact.reference.partition("/")[0] in local:
            yield SpecDiagnostic(
                "pushes to a local registry that the cluster does not have",
                detail="The gate LocalRegistry is off, so something else has to answer there",
                hint="set `featureGates: {LocalRegistry: true}`",
                severity=Severity.WARNING,
                path=("artifacts", index, "reference"),
                value=f'"{artifact.reference}"',
            )
    for host, endpoints in config.registry_mirrors.items():
        for endpoint in endpoints:
            if endpoint.partition("://")[2].partition("/")[0].lower() in (
                "docker.io",
                "www.docker.io",
                "hub.docker.com",
            ):
                yield SpecDiagnostic(
                    "no registry answers at this endpoint",
                    detail="docker.io is the name of Docker Hub in image references; its registry is another host",
                    hint="write `https://registry-1.docker.io`",
                    severity=Severity.WARNING,
                    path=("registryMirrors", host),
                    value=f'"{endpoint}"',
                )


def _lifecycle(config: ClusterConfiguration, kinds: Collection[str]) -> Problems:
    names = {
        "wasm_node": [str(node.name) for node in config.effective_wasm_nodes],
        "artifact": [artifact.name for artifact in config.artifacts],
    }
    for pattern in config.lifecycle:
        kind, dot, name = pattern.partition(".")
        path = ("lifecycle", pattern)
        if not any(fnmatchcase(known, kind) for known in kinds):
            close = nearest(kind, kinds)
            hint = f"did you mean `{close}.{name or '*'}`?" if close else f"kinds: {', '.join(sorted(kinds))}"
            yield SpecDiagnostic(
                f"no resource has an address like `{pattern}`",
                detail="An address is KIND.NAME; a pattern may have `*` in both parts",
                hint=hint,
                path=path,
            )
        elif not dot and kind in kinds:
            yield SpecDiagnostic(
                f"`{pattern}` names no resource", hint=f"write `{pattern}.*` for all of them", path=path
            )
        elif kind in names and not any(fnmatchcase(known, name) for known in names[kind]):
            close = nearest(name, names[kind])
            hint = f"did you mean `{kind}.{close}`?" if close else ""
            yield SpecDiagnostic(f"the spec has no `{pattern}`", hint=hint, path=path, severity=Severity.WARNING)
