"""`controlPlaneConfiguration` and `workerConfiguration`, as cinder took them from crit (`crit.sh/v1alpha2`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from cinderctl.spec.base import (
    Flag,
    FlagValue,
    KubernetesMap,
    KubernetesObject,
    NonEmpty,
    Port,
    SpecModel,
    Switch,
    Text,
    is_dns_name,
    is_ip,
    wrong,
)
from cinderctl.spec.wasm_nodes import Taint

__all__ = [
    "POD_SUBNET",
    "SERVICE_SUBNET",
    "Component",
    "ControlPlaneConfiguration",
    "CritBootstrapServer",
    "Endpoint",
    "Etcd",
    "HostPathMount",
    "KubeApiServer",
    "KubeProxy",
    "NodeConfiguration",
    "WorkerConfiguration",
]

# crit's were 10.253.0.0/16 and 10.254.0.0/16. These are what kubeadm's and kind's users know, and pod addresses keep
# their host bits on loopback (10.244.1.5 listens on 127.244.1.5).
POD_SUBNET = "10.244.0.0/16"
SERVICE_SUBNET = "10.96.0.0/16"


def _subnet(value: str) -> str:
    for part in value.split(","):
        try:
            ipaddress.ip_network(part.strip())
        except ValueError as error:
            try:
                network = ipaddress.ip_network(part.strip(), strict=False)
            except ValueError:
                raise wrong("not a CIDR range", "A range is an address and a prefix, as 10.10.0.0/16") from error
            raise wrong("CIDR range with host bits set", hint=f"write `{network}`") from error
    return value


def _host(value: str) -> str:
    if not is_ip(value) and not is_dns_name(value.removeprefix("*.")):
        raise wrong("neither a host name nor an IP address")
    return value


def _endpoint(value: Any) -> Any:
    """crit also takes `host:port` as text."""
    if not isinstance(value, str):
        return value
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit():
        return {"host": value}
    return {"host": host.strip("[]"), "port": int(port)}


class HostPathMount(SpecModel):
    """A host path that a component may see."""

    name: Text = Field(default="", description="Name of the volume.")
    host_path: NonEmpty = Field(description="Path on the host.")
    mount_path: NonEmpty = Field(description="Path as the component sees it.")
    read_only: Switch = Field(default=False, description="Mount read-only.")
    host_path_type: Text = Field(default="", description="Kubernetes' hostPath type, as DirectoryOrCreate.")


class Component(SpecModel):
    """Settings of one control-plane program."""

    extra_args: Mapping[Flag, FlagValue] = Field(
        default_factory=dict,
        description="Command-line flags by name without dashes. Numbers and booleans are passed as written, lists "
        "joined by commas.",
    )
    extra_volumes: tuple[HostPathMount, ...] = Field(
        default=(),
        description="Host paths that the program may see. A program of the process provider sees the host's own paths.",
    )
    feature_gates: Mapping[str, Switch] = Field(
        default_factory=dict, description="Kubernetes' own feature gates of this program."
    )
    extra_labels: Mapping[str, Text] = Field(default_factory=dict, description="Labels of the component's pod.")


class KubeApiServer(Component):
    """Settings of kube-apiserver."""

    bind_port: Port | None = Field(
        default=None,
        description="Port of the API server. Default: 6443 in a node container; on the process provider a free port, "
        "chosen once.",
    )
    extra_sans: tuple[Annotated[NonEmpty, AfterValidator(_host)], ...] = Field(
        default=(), description="More host names and addresses in the API server's certificate."
    )
    audit_policy: KubernetesObject | None = Field(
        default=None,
        description="An audit Policy (audit.k8s.io/v1), written out here. The log is kept with the cluster's logs "
        "unless extraArgs has `audit-log-path`; other audit-log-* flags go into extraArgs.",
    )
    healthcheck_proxy_version: Text = Field(default="", description="crit's health check proxy; has no effect.")
    healthcheck_proxy_bind_port: Port | None = Field(
        default=None, description="crit's health check proxy; has no effect."
    )


class KubeProxy(SpecModel):
    """Settings of kube-proxy."""

    config: KubernetesMap = Field(default_factory=dict, description="A KubeProxyConfiguration.")
    disabled: Switch = Field(default=False, description="Run no kube-proxy.")
    affinity: KubernetesMap = Field(
        default_factory=dict,
        description="Affinity of the kube-proxy pods (core/v1 Affinity), which cinder's users needed to keep them off "
        "wasm nodes.",
    )
    extra_labels: Mapping[str, Text] = Field(default_factory=dict, description="Labels of the kube-proxy pods.")


class Etcd(SpecModel):
    """How the API server reaches etcd."""

    endpoints: tuple[NonEmpty, ...] = Field(default=(), description="Client URLs of an etcd of your own.")
    ca_file: Text = Field(default="", description="CA certificate of that etcd.")
    cert_file: Text = Field(default="", description="Client certificate for that etcd.")
    key_file: Text = Field(default="", description="Key of the client certificate.")
    ca_key: Text = Field(default="", description="Key with which crit encrypted shared files; has no effect.")


class CritBootstrapServer(SpecModel):
    """crit's bootstrap server, which cinder never used. Has no effect."""

    version: Text = Field(default="", description="Has no effect.")
    bind_port: Port | None = Field(default=None, description="Has no effect.")
    cloud_provider: Text = Field(default="", description="Has no effect.")
    extra_args: Mapping[Flag, FlagValue] = Field(default_factory=dict, description="Has no effect.")


class Endpoint(SpecModel):
    """A host and a port."""

    host: Text = Field(default="", description="Host name or address.")
    port: Port | None = Field(default=None, description="Port.")


class NodeConfiguration(SpecModel):
    """Settings of the node that a kubelet runs on."""

    kubernetes_version: Text = Field(default="", description="Has no effect: `kubernetesVersion` of the cluster holds.")
    hostname: Text = Field(default="", description="Name of the node.")
    kube_dir: Text = Field(default="", description="Directory of Kubernetes' files in the node.")
    host_i_pv4: Text = Field(default="", alias="hostIPv4", description="Address of the node.")
    cloud_provider: Text = Field(default="", description="Cloud provider of the kubelet.")
    container_runtime: Literal["containerd", "docker", "crio", ""] = Field(default="", description="Container runtime.")
    taints: tuple[Taint, ...] = Field(default=(), description="Taints of the node.")
    kubelet: KubernetesMap = Field(default_factory=dict, description="A KubeletConfiguration.")
    kubelet_extra_args: Mapping[Flag, FlagValue] = Field(default_factory=dict, description="Flags of the kubelet.")


class ControlPlaneConfiguration(SpecModel):
    """The control plane."""

    api_version: Text = Field(default="", description="Ignored, as crit's file format had it.")
    kind: Text = Field(default="", description="Ignored, as crit's file format had it.")
    cluster_name: Text = Field(default="", description="Has no effect: `metadata.name` holds.")
    control_plane_endpoint: Annotated[Endpoint, BeforeValidator(_endpoint, json_schema_input_type=Endpoint | str)] = (
        Field(default_factory=Endpoint, description="Host and port that nodes reach the API by; also `host:port`.")
    )
    pod_subnet: Annotated[NonEmpty, AfterValidator(_subnet)] = Field(
        default=POD_SUBNET, description="Range of the pods' addresses. (crit's default was 10.253.0.0/16.)"
    )
    service_subnet: Annotated[NonEmpty, AfterValidator(_subnet)] = Field(
        default=SERVICE_SUBNET,
        description="Range of the Services' addresses; DNS is the tenth. (crit's default was 10.254.0.0/16.)",
    )
    core_dns_version: Text = Field(default="", alias="coreDNSVersion", description="Version of CoreDNS.")
    feature_gates: Mapping[str, Switch] = Field(
        default_factory=dict,
        description="crit's own gates (AuthProxyCA, BootstrapServer, UploadETCDSecrets); no effect.",
    )
    etcd: Etcd = Field(default_factory=Etcd, description="An etcd of your own.")
    kube_api_server: KubeApiServer = Field(
        default_factory=KubeApiServer, alias="kubeAPIServer", description="kube-apiserver."
    )
    kube_controller_manager: Component = Field(default_factory=Component, description="kube-controller-manager.")
    kube_scheduler: Component = Field(default_factory=Component, description="kube-scheduler.")
    kube_proxy: KubeProxy = Field(default_factory=KubeProxy, description="kube-proxy.")
    crit_bootstrap_server: CritBootstrapServer = Field(
        default_factory=CritBootstrapServer, description="crit's bootstrap server; has no effect."
    )
    node: NodeConfiguration = Field(default_factory=NodeConfiguration, description="The node of the control plane.")


class WorkerConfiguration(SpecModel):
    """Workers: nodes that run containers."""

    api_version: Text = Field(default="", description="Ignored, as crit's file format had it.")
    kind: Text = Field(default="", description="Ignored, as crit's file format had it.")
    cluster_name: Text = Field(default="", description="Has no effect: `metadata.name` holds.")
    control_plane_endpoint: Annotated[Endpoint, BeforeValidator(_endpoint, json_schema_input_type=Endpoint | str)] = (
        Field(default_factory=Endpoint, description="Has no effect: workers get the control plane's own.")
    )
    bootstrap_token: Text = Field(default="", description="Has no effect: tokens are made when a worker joins.")
    bootstrap_server_url: Text = Field(default="", alias="bootstrapServerURL", description="Has no effect.")
    ca_cert: Text = Field(default="", description="Has no effect: workers get the cluster's CA.")
    feature_gates: Mapping[str, Switch] = Field(default_factory=dict, description="crit's own gates; no effect.")
    node: NodeConfiguration = Field(default_factory=NodeConfiguration, description="The worker's node.")
