"""`ClusterConfiguration` of `cinder.crit.sh/v1alpha1`: cinder's file, and the fields added to it.

Attributes are snake_case, YAML is camelCase. What the file only implies (two wasm nodes when the gate Krustlet is on)
is in properties, so that nobody asks a gate twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from cinderctl.spec.base import DnsLabel, NonEmpty, Port, SpecModel, Switch, Text, as_written, wrong
from cinderctl.spec.control_plane import ControlPlaneConfiguration, WorkerConfiguration
from cinderctl.spec.diagnostics import nearest
from cinderctl.spec.gates import SWITCHABLE, Gate, is_on
from cinderctl.spec.mirrors import RegistryMirrors
from cinderctl.spec.node_files import File, Mount, PortMapping
from cinderctl.spec.settings import Binaries, Certificates, Kubeconfig, LifecycleRule, Metadata, Registry, StorageClass
from cinderctl.spec.wasm_nodes import DEFAULT_PORTS, Arch, WasmNode
from cinderctl.spec.workloads import Artifact, Manifest

__all__ = ["API_VERSION", "DEFAULT_KUBERNETES_VERSION", "KIND", "ClusterConfiguration", "Provider"]

API_VERSION = "cinder.crit.sh/v1alpha1"
KIND = "ClusterConfiguration"
DEFAULT_KUBERNETES_VERSION = "v1.36.3"

Provider: TypeAlias = Literal["process", "docker", "external"]


def _version(value: str) -> str:
    if not re.fullmatch(r"v1\.[0-9]+\.[0-9]+(-(alpha|beta|rc)\.[0-9]+)?", value):
        hint = f"write {DEFAULT_KUBERNETES_VERSION}"
        if re.fullmatch(r"1\.[0-9]+\.[0-9]+", value):
            hint = f"write v{value}"
        elif re.fullmatch(r"v?1\.[0-9]+", value):
            hint = f"write all three parts, as v{value.removeprefix('v')}.0"
        raise wrong("not a Kubernetes version", "A version is complete and begins with v", hint)
    return value


def _gate(name: str) -> str:
    if name not in SWITCHABLE:
        close = nearest(name, SWITCHABLE)
        hint = f"did you mean `{close}`?" if close else f"known gates: {', '.join(SWITCHABLE)}"
        raise wrong(
            f"unknown feature gate `{name}`", "Gates of Kubernetes itself go below the program they are for", hint
        )
    return name


class ClusterConfiguration(SpecModel):
    """A Kubernetes cluster with WebAssembly nodes."""

    api_version: Literal["cinder.crit.sh/v1alpha1"] = Field(description="cinder.crit.sh/v1alpha1.")
    kind: Literal["ClusterConfiguration"] = Field(description="ClusterConfiguration.")
    metadata: Metadata = Field(default_factory=Metadata, description="The cluster's name.")
    provider: Provider = Field(
        default="process",
        description="Who supplies the control plane: `process` (upstream's programs as ordinary processes), `docker` "
        "(containers), `external` (a cluster that exists).",
    )
    kubernetes_version: Annotated[str, BeforeValidator(as_written), Strict(), AfterValidator(_version)] = Field(
        default=DEFAULT_KUBERNETES_VERSION, description="Version of Kubernetes, as v1.36.3."
    )
    feature_gates: Mapping[Annotated[Text, AfterValidator(_gate)], Switch] = Field(
        default_factory=dict,
        description="cinder's gates: LocalRegistry (a registry beside the cluster), Krustlet (wasm nodes), MachineAPI, "
        "FixCgroupMounts, AllAlpha (all of them that are not named).",
    )
    wasm_nodes: tuple[WasmNode, ...] | None = Field(
        default=None,
        description="Nodes that run WebAssembly. Default: none; with the gate Krustlet `<cluster>-wasi` (port 3000) "
        "and `<cluster>-wascc` (port 3001).",
    )
    files: tuple[File, ...] = Field(default=(), description="Files written into the node before anything else runs.")
    pre_crit_commands: tuple[NonEmpty, ...] = Field(
        default=(), description="Shell lines run before the control plane starts. The first that fails ends the run."
    )
    post_crit_commands: tuple[NonEmpty, ...] = Field(
        default=(),
        description="Shell lines run when the cluster is up, with KUBECONFIG set and kubectl on PATH. The first that "
        "fails ends the run.",
    )
    control_plane_configuration: ControlPlaneConfiguration = Field(
        default_factory=ControlPlaneConfiguration, description="The control plane."
    )
    worker_configuration: WorkerConfiguration = Field(
        default_factory=WorkerConfiguration, description="Workers that run containers."
    )
    extra_mounts: tuple[Mount, ...] = Field(default=(), description="Host directories seen in the node container.")
    extra_port_mappings: tuple[PortMapping, ...] = Field(
        default=(), description="Ports of the node container, published here."
    )
    local_registry_name: DnsLabel = Field(default="cinderegg", description="Name that pods know the local registry by.")
    local_registry_port: Port = Field(
        default=5000, description="Port of the local registry, on this machine and for pods."
    )
    registry_mirrors: RegistryMirrors = Field(
        default_factory=dict,
        description="Where images of a registry really come from: its host as image references have it, and the URL of"
        " an endpoint, or several that are tried in order. http:// means plain http.",
    )
    registry: Registry = Field(default_factory=Registry, description="The local registry.")
    artifacts: tuple[Artifact, ...] = Field(default=(), description="WebAssembly modules kept in a registry.")
    manifests: tuple[Manifest, ...] = Field(default=(), description="Kubernetes objects to apply.")
    kubeconfig: Kubeconfig = Field(default_factory=Kubeconfig, description="The entries in the user's kubeconfig.")
    certificates: Certificates = Field(default_factory=Certificates, description="Keys and certificates.")
    binaries: Binaries = Field(default_factory=Binaries, description="Where upstream's programs come from.")
    storage_class: StorageClass = Field(default_factory=StorageClass, description="The default StorageClass.")
    lifecycle: Mapping[NonEmpty, LifecycleRule] = Field(
        default_factory=dict,
        description="By address pattern (`wasm_node.*`, `manifest.*`): what may not be deleted,"
        " what drift is left alone.",
    )

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.metadata.name

    def gate(self, gate: Gate) -> bool:
        """Whether a gate is on."""
        return is_on(self.feature_gates, gate)

    @property
    def registry_enabled(self) -> bool:
        """Whether the cluster has the local registry."""
        return self.gate("LocalRegistry")

    @property
    def local_registry(self) -> str:
        """The local registry as pods name it: `cinderegg:5000`."""
        return f"{self.local_registry_name}:{self.local_registry_port}"

    @property
    def context_name(self) -> str:
        """The kubeconfig context."""
        return self.kubeconfig.context or f"kubernetes-admin@{self.name}"

    @property
    def effective_wasm_nodes(self) -> tuple[WasmNode, ...]:
        """The wasm nodes to have, with name and port filled in: those listed; one of each kind when only the gate
        Krustlet is on; none when the gate is off by name."""
        if self.feature_gates.get("Krustlet") is False:
            return ()
        listed = self.wasm_nodes
        if listed is None:
            arches: tuple[Arch, ...] = ("wasm32-wasi", "wasm32-wascc") if self.gate("Krustlet") else ()
            listed = tuple(WasmNode.model_validate({"arch": arch}) for arch in arches)
        return tuple(
            node.model_copy(
                update={
                    "name": node.name or f"{self.name}-{node.arch.removeprefix('wasm32-')}",
                    "port": node.port or DEFAULT_PORTS[node.arch],
                }
            )
            for node in listed
        )

    def lifecycle_of(self, address: str) -> LifecycleRule:
        """What every pattern that matches an address (`kind.name`) says, together."""
        rules = [rule for pattern, rule in self.lifecycle.items() if fnmatchcase(address, pattern)]
        return LifecycleRule(
            protect=any(rule.protect for rule in rules),
            ignore=tuple(dict.fromkeys(path for rule in rules for path in rule.ignore)),
        )
