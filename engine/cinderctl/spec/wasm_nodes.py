"""`wasmNodes`: the nodes that run WebAssembly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from cinderctl.spec.base import NonEmpty, Number, Port, SpecModel, Switch, Text, is_dns_name, wrong

__all__ = ["DEFAULT_PORTS", "MAX_PODS", "Arch", "Taint", "WasmNode"]

Arch: TypeAlias = Literal["wasm32-wasi", "wasm32-wascc"]

# Krustlet's ports under cinder.
DEFAULT_PORTS: Mapping[Arch, int] = {"wasm32-wasi": 3000, "wasm32-wascc": 3001}

# Wasm pods are small: many times the 110 of a container node.
MAX_PODS = 1000

_NAME = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)")

# The node agent sets these itself. Of the other names below kubernetes.io, the API server's NodeRestriction lets a node
# set only those that follow.
_MANAGED = ("kubernetes.io/arch", "kubernetes.io/os", "kubernetes.io/hostname", "type")
_ALLOWED_PREFIXES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_ALLOWED = frozenset(
    {
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)


def _qualified(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if not _NAME.fullmatch(name) or (slash and not is_dns_name(prefix)):
        raise wrong("not a Kubernetes name", "A name is `name` or `dns.prefix/name`, the name at most 63 characters")
    return key


def _label_key(key: str) -> str:
    _qualified(key)
    prefix = key.rpartition("/")[0]
    if key in _MANAGED or (key.startswith("beta.kubernetes.io/") and f"{key[5:]}" in _MANAGED):
        raise wrong("label that the wasm node sets itself", hint="remove it")
    below = prefix in ("kubernetes.io", "k8s.io") or prefix.endswith((".kubernetes.io", ".k8s.io"))
    allowed = key in _ALLOWED or prefix.endswith(_ALLOWED_PREFIXES)
    if below and not allowed:
        raise wrong(
            "label that Kubernetes does not let a node set",
            "Of the names below kubernetes.io and k8s.io a node may set only those of its own "
            "(node.kubernetes.io/..., kubelet.kubernetes.io/..., topology and instance type)",
            f"use a prefix of your own, as `example.com/{key.rpartition('/')[2]}`",
        )
    return key


def _label_value(value: str) -> str:
    if value and not _NAME.fullmatch(value):
        raise wrong(
            "not a label value",
            "At most 63 letters, digits, `-`, `_` and `.`, beginning and ending with one of the first two",
        )
    return value


def _node_name(value: str) -> str:
    if len(value) > 63 or not is_dns_name(value):
        raise wrong("not a node name", "Use lower-case letters, digits, `-` and `.`, at most 63")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise wrong("must be an absolute path")
    return value


LabelKey: TypeAlias = Annotated[Text, AfterValidator(_label_key)]
LabelValue: TypeAlias = Annotated[Text, AfterValidator(_label_value)]
QualifiedName: TypeAlias = Annotated[Text, AfterValidator(_qualified)]


class Taint(SpecModel):
    """A taint of a node."""

    key: QualifiedName = Field(description="Key of the taint.")
    value: LabelValue = Field(default="", description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(description="What it does to pods.")


class WasmNode(SpecModel):
    """A node that runs WebAssembly modules as pods."""

    name: Annotated[Text, AfterValidator(_node_name)] | None = Field(
        default=None, description="Name of the node. Default: `<cluster>-wasi` or `<cluster>-wascc`, by `arch`."
    )
    arch: Arch = Field(
        default="wasm32-wasi", description="What it runs: WASI commands and components, or waSCC actors."
    )
    port: Port | None = Field(
        default=None, description="Port of its kubelet API. Default: 3000 for wasm32-wasi, 3001 for wasm32-wascc."
    )
    labels: Mapping[LabelKey, LabelValue] = Field(
        default_factory=dict, description="Labels beside those that every wasm node has (arch, os, hostname, type)."
    )
    annotations: Mapping[QualifiedName, Text] = Field(default_factory=dict, description="Annotations of the node.")
    taints: tuple[Taint, ...] = Field(
        default=(), description="Taints beside kubernetes.io/arch=<arch>:NoExecute, which every wasm node has."
    )
    max_pods: Annotated[Number, Field(ge=1, le=100_000)] = Field(
        default=MAX_PODS, description="How many pods it takes."
    )
    restart_bare_pods: Switch = Field(
        default=False,
        description="Restart pods without a controller as their restartPolicy says. Off: they run once, as under "
        "Krustlet.",
    )
    allow_local_modules: Switch = Field(
        default=True,
        description="Let image references `fs/<path>` name modules on this machine, as cinder's nodes did.",
    )
    host_path_prefixes: tuple[Annotated[NonEmpty, AfterValidator(_absolute)], ...] = Field(
        default=(), description="hostPath volumes only at or below these directories. Empty: wherever the user may."
    )
