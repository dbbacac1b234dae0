"""What each provider cannot do with a spec, and which one can.

An error where the user would miss something, a warning where nothing is lost (cinder's users wrote a kube-proxy
affinity to keep it off wasm nodes: where no kube-proxy runs, that is so by itself).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from cinderctl.core.diagnostics import Severity
from cinderctl.spec.diagnostics import SpecDiagnostic, render_path
from cinderctl.spec.v1alpha1 import ClusterConfiguration
from cinderctl.spec.written import Path

__all__ = ["check_provider"]

Problems: TypeAlias = "Iterator[SpecDiagnostic]"

_PLANE = "controlPlaneConfiguration"
_COMPONENTS = ("kubeAPIServer", "kubeControllerManager", "kubeScheduler")

# The process provider splits the pod range into sixteenths, the last of which holds the nodes' own addresses.
_MOST_WASM_NODES = 15


@dataclass(frozen=True, slots=True)
class _Rule:
    """`path` must not be set. `instead`: what to do other than change the provider."""

    path: Path
    why: str
    can: str = "docker"
    instead: str = ""


_PROCESS_CANNOT = (
    _Rule(
        ("extraMounts",), "There is no node container to mount into; pods mount host directories with hostPath volumes"
    ),
    _Rule(("extraPortMappings",), "There is no node container: everything listens on this machine already"),
    _Rule(("workerConfiguration",), "Workers run containers, and it runs none"),
    _Rule((_PLANE, "kubeProxy", "config"), "It runs no kube-proxy"),
    _Rule(
        (_PLANE, "node", "kubelet"), "Its control plane has no kubelet", instead="`wasmNodes` has the nodes' settings"
    ),
    _Rule((_PLANE, "node", "kubeletExtraArgs"), "Its control plane has no kubelet"),
    _Rule(
        (_PLANE, "node", "taints"), "Its control plane is no node", instead="`wasmNodes[].taints` has the nodes' taints"
    ),
    _Rule((_PLANE, "node", "cloudProvider"), "Its control plane has no kubelet"),
    _Rule((_PLANE, "etcd"), "It runs an etcd of its own"),
    _Rule(
        (_PLANE, "controlPlaneEndpoint"),
        "Its API server is on loopback",
        instead="`kubeAPIServer.bindPort` sets the port, `kubeAPIServer.extraSans` adds names",
    ),
)

_PROCESS_IGNORES = (
    _Rule((_PLANE, "kubeProxy", "affinity"), "No kube-proxy runs, so none has to be kept off the wasm nodes"),
    _Rule((_PLANE, "kubeProxy", "extraLabels"), "No kube-proxy runs"),
    _Rule((_PLANE, "coreDNSVersion"), "No CoreDNS runs: container pods do not"),
    _Rule((_PLANE, "node", "hostname"), "The control plane is no node"),
    _Rule((_PLANE, "node", "hostIPv4"), "The control plane is no node"),
    _Rule((_PLANE, "node", "kubeDir"), "The files are in the cluster's state directory"),
    _Rule((_PLANE, "node", "containerRuntime"), "No containers run"),
    *(_Rule((_PLANE, name, "extraLabels"), "The component is a process, not a pod") for name in _COMPONENTS),
)

# crit's own settings, and what cinder forced whatever the file said.
_NOBODY_USES = (
    _Rule((_PLANE, "featureGates"), "They were crit's own"),
    _Rule((_PLANE, "critBootstrapServer"), "cinder never used it"),
    _Rule((_PLANE, "kubeAPIServer", "healthcheckProxyVersion"), "The health check proxy was crit's own"),
    _Rule((_PLANE, "kubeAPIServer", "healthcheckProxyBindPort"), "The health check proxy was crit's own"),
)

_EXTERNAL_CANNOT = tuple(
    _Rule((field,), "The cluster is not ours to set up", can="process or docker")
    for field in (
        "kubernetesVersion",
        "controlPlaneConfiguration",
        "workerConfiguration",
        "files",
        "preCritCommands",
        "extraMounts",
        "extraPortMappings",
        "certificates",
    )
)

# Flags that tie a component to its cluster: set by the provider, with the field that is meant for it, if there is one.
_OWN_FLAGS: Mapping[str, Mapping[str, str]] = {
    "kubeAPIServer": {
        "secure-port": "kubeAPIServer.bindPort",
        "service-cluster-ip-range": "serviceSubnet",
        "tls-cert-file": "kubeAPIServer.extraSans",
        "tls-private-key-file": "certificates",
        "egress-selector-config-file": "",
        "client-ca-file": "",
        "etcd-servers": "",
        "etcd-cafile": "",
        "etcd-certfile": "",
        "etcd-keyfile": "",
    },
    "kubeControllerManager": {
        "cluster-cidr": "podSubnet",
        "service-cluster-ip-range": "serviceSubnet",
        "kubeconfig": "",
        "authentication-kubeconfig": "",
        "authorization-kubeconfig": "",
        "cluster-signing-cert-file": "",
        "cluster-signing-key-file": "",
        "root-ca-file": "",
    },
    "kubeScheduler": {"kubeconfig": "", "authentication-kubeconfig": "", "authorization-kubeconfig": ""},
}


def check_provider(config: ClusterConfiguration) -> Problems:
    """What the spec asks of its provider in vain. Problems have no source yet."""
    given = config.model_dump(by_alias=True, exclude_defaults=True)
    yield from _ignored(given, _NOBODY_USES, "")
    yield from _forced_names(config)
    yield from _machine_api(config)
    match config.provider:
        case "process":
            yield from _refused(given, _PROCESS_CANNOT, "process")
            yield from _ignored(given, _PROCESS_IGNORES, "process")
            yield from _process_values(config)
        case "external":
            yield from _refused(given, _EXTERNAL_CANNOT, "external")
        case "docker":
            pass


def _lookup(given: Any, path: Path) -> Any:
    for part in path:
        if not isinstance(given, Mapping) or part not in given:
            return None
        given = given[part]
    return given


def _refused(given: Any, rules: tuple[_Rule, ...], provider: str) -> Problems:
    for rule in rules:
        if _lookup(given, rule.path):
            field = render_path(rule.path)
            change = f"set `provider: {rule.can}`" if " or " not in rule.can else "let `provider` be process or docker"
            yield SpecDiagnostic(
                f"the {provider} provider cannot do `{_short(rule.path)}`",
                detail=f"{rule.why}. The provider that can: {rule.can}",
                hint=rule.instead or f"{change}, or remove `{field}`",
                path=rule.path,
            )


def _ignored(given: Any, rules: tuple[_Rule, ...], provider: str) -> Problems:
    for rule in rules:
        if _lookup(given, rule.path):
            where = f" on the {provider} provider" if provider else ""
            yield _warning(f"`{_short(rule.path)}` has no effect{where}", rule.why, rule.path)


def _short(path: Path) -> str:
    """Below the control plane the field's own path says enough."""
    return render_path(path[1:] if path[0] == _PLANE and len(path) > 1 else path)


def _warning(summary: str, detail: str, path: Path, hint: str = "") -> SpecDiagnostic:
    return SpecDiagnostic(summary, detail=detail, hint=hint, severity=Severity.WARNING, path=path)


def _forced_names(config: ClusterConfiguration) -> Problems:
    """Names and versions that cinder took from elsewhere, too."""
    for field, part in (
        (_PLANE, config.control_plane_configuration),
        ("workerConfiguration", config.worker_configuration),
    ):
        if part.cluster_name and part.cluster_name != config.name:
            detail = f"The cluster is `{config.name}`: `metadata.name` holds"
            yield _warning("`clusterName` has no effect", detail, (field, "clusterName"), "set `metadata.name`")
        version = part.node.kubernetes_version
        if version and version.removeprefix("v") != config.kubernetes_version.removeprefix("v"):
            detail = f"The cluster runs {config.kubernetes_version}: `kubernetesVersion` at the top holds"
            path = (field, "node", "kubernetesVersion")
            yield _warning(
                "`kubernetesVersion` of a node has no effect", detail, path, "set `kubernetesVersion` at the top"
            )


def _machine_api(config: ClusterConfiguration) -> Problems:
    if config.feature_gates.get("MachineAPI"):
        yield SpecDiagnostic(
            "no provider has the gate MachineAPI",
            detail="It let the cluster start Docker containers as workers through machine-api, which is retired",
            hint="list the nodes in the spec (`wasmNodes`) and apply it again to change their number",
            path=("featureGates", "MachineAPI"),
        )
    elif config.gate("MachineAPI"):
        yield _warning(
            "AllAlpha turns on no MachineAPI",
            "No provider has it",
            ("featureGates", "AllAlpha"),
            "write `MachineAPI: false`",
        )
    if config.provider != "docker" and config.feature_gates.get("FixCgroupMounts"):
        detail = "There is no node container whose cgroup mounts could be wrong"
        yield _warning("`FixCgroupMounts` has no effect", detail, ("featureGates", "FixCgroupMounts"))


def _process_values(config: ClusterConfiguration) -> Problems:
    plane = config.control_plane_configuration
    yield from _own_flags(config)
    yield from _volumes(config)
    for index, file in enumerate(config.files):
        if file.owner:
            detail = "It runs as you, and so do the files it writes"
            yield _warning("`owner` has no effect on the process provider", detail, ("files", index, "owner"))
    for field, text in (("podSubnet", plane.pod_subnet), ("serviceSubnet", plane.service_subnet)):
        networks = [ipaddress.ip_network(part.strip()) for part in text.split(",")]
        if any(network.version != 4 for network in networks):
            yield SpecDiagnostic(
                f"the process provider cannot do IPv6 in `{field}`",
                detail="Its pod network stands on 127.0.0.0/8. The provider that can: docker",
                hint="keep the IPv4 range",
                path=(_PLANE, field),
            )
        elif field == "podSubnet" and not 16 <= networks[0].prefixlen <= 20:
            yield SpecDiagnostic(
                "the process provider needs a `podSubnet` from /16 to /20",
                detail="Pod addresses keep their host bits on loopback, in a block of 65,536 addresses",
                hint="write a /16, as 10.10.0.0/16",
                path=(_PLANE, field),
                value=f'"{text}"',
            )
    if len(config.effective_wasm_nodes) > _MOST_WASM_NODES:
        yield SpecDiagnostic(
            f"the process provider takes at most {_MOST_WASM_NODES} wasm nodes",
            detail=f"The spec has {len(config.effective_wasm_nodes)}; one node takes hundreds of pods",
            path=("wasmNodes",),
        )


def _own_flags(config: ClusterConfiguration) -> Problems:
    plane = config.control_plane_configuration
    components = zip(
        _COMPONENTS, (plane.kube_api_server, plane.kube_controller_manager, plane.kube_scheduler), strict=True
    )
    for name, component in components:
        for flag, field in _OWN_FLAGS[name].items():
            if flag in component.extra_args:
                yield SpecDiagnostic(
                    f"`{flag}` is not yours to set",
                    detail="The process provider sets it: it ties the component to its cluster",
                    hint=f"use `{field}`" if field else "remove it",
                    path=(_PLANE, name, "extraArgs", flag),
                )


def _volumes(config: ClusterConfiguration) -> Problems:
    plane = config.control_plane_configuration
    components = zip(
        _COMPONENTS, (plane.kube_api_server, plane.kube_controller_manager, plane.kube_scheduler), strict=True
    )
    for name, component in components:
        for index, volume in enumerate(component.extra_volumes):
            if volume.host_path.rstrip("/") != volume.mount_path.rstrip("/"):
                yield SpecDiagnostic(
                    "the process provider cannot mount a path elsewhere",
                    detail="Its components are processes and see the host's own paths. The provider that can: docker",
                    hint=f"let the component's flags name `{volume.host_path}`, and use that as `mountPath` too",
                    path=(_PLANE, name, "extraVolumes", index, "mountPath"),
                    value=f'"{volume.mount_path}"',
                )
