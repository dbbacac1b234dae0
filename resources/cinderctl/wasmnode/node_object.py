"""The Node as the API shows it: the labels and taints users of Krustlet know, and what the machine really has. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cinderctl.wasmnode.config import NodeConfig
from cinderctl.wasmnode.host_facts import HostFacts, Pressure
from cinderctl.wasmnode.images import Image
from cinderctl.wasmnode.podspec import time_text

__all__ = ["allowed_label", "new_node", "node_annotations", "node_labels", "node_status", "node_taints", "same_status"]

_MANAGED = frozenset(
    (
        "kubernetes.io/arch",
        "beta.kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/os",
        "kubernetes.io/hostname",
        "type",
    )
)
# What NodeRestriction lets a node say about itself below kubernetes.io and k8s.io (KEP-279).
_SELF_PREFIXES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_SELF_LABELS = frozenset(
    (
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    )
)
_IMAGES_SHOWN = 50  # as the kubelet's nodeStatusMaxImages


def allowed_label(key: str) -> bool:
    """Whether the user may set this label of a wasm node: not those we manage, nor those a node may not give itself."""
    if key in _MANAGED:
        return False
    domain = key.partition("/")[0] if "/" in key else ""
    reserved = any(domain == d or domain.endswith(f".{d}") for d in ("kubernetes.io", "k8s.io"))
    if not reserved or key in _SELF_LABELS:
        return True
    return any(domain == prefix or domain.endswith(f".{prefix}") for prefix in _SELF_PREFIXES)


def node_labels(config: NodeConfig) -> dict[str, str]:
    own = {
        "kubernetes.io/arch": config.arch,
        "beta.kubernetes.io/arch": config.arch,
        "kubernetes.io/os": "linux",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/hostname": config.node_name,
        "type": "krustlet",
    }
    return {k: v for k, v in config.labels.items() if allowed_label(k)} | own


def node_annotations(config: NodeConfig) -> dict[str, str]:
    own = {
        "node.alpha.kubernetes.io/ttl": "0",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    }
    return {**config.annotations, **own}


def node_taints(config: NodeConfig) -> list[dict[str, str]]:
    effects = ("NoExecute", "NoSchedule")
    own = [{"key": "kubernetes.io/arch", "value": config.arch, "effect": effect} for effect in effects]
    taken = {("kubernetes.io/arch", effect) for effect in effects}
    return own + [dict(taint) for taint in config.taints if (taint.get("key"), taint.get("effect")) not in taken]


def new_node(config: NodeConfig) -> dict[str, Any]:
    """What a node is created with. Taints only here: NodeRestriction forbids a node to change its own later."""
    pods = {"podCIDR": config.pod_cidr, "podCIDRs": [config.pod_cidr]} if config.pod_cidr else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": config.node_name,
            "labels": node_labels(config),
            "annotations": node_annotations(config),
        },
        "spec": {"taints": node_taints(config)} | pods,
    }


def node_status(
    config: NodeConfig,
    facts: HostFacts,
    pressure: Pressure,
    *,
    images: Sequence[Image],
    runtime: Mapping[str, Any] | None,
    before: Mapping[str, Any],
    now: float,
) -> dict[str, Any]:
    """`runtime` is the runtime's `info()`, None while it does not answer; `before` the status the API shows."""
    amounts = {
        "cpu": str(facts.cpus),
        "memory": f"{facts.memory // 1024}Ki",
        "ephemeral-storage": f"{facts.storage // 1024}Ki",
        "pods": str(config.max_pods),
    }
    version = str((runtime or {}).get("wasmtime") or "unknown")
    runs = f"wasmtime://{version}" if config.runtime_socket is not None else "none://"
    return {
        "capacity": amounts,
        "allocatable": amounts,
        "addresses": [
            {"type": "InternalIP", "address": config.node_ip},
            {"type": "Hostname", "address": config.node_name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
        "nodeInfo": {
            "architecture": config.arch,
            "operatingSystem": "linux",
            "machineID": facts.machine_id,
            "systemUUID": facts.system_uuid,
            "bootID": facts.boot_id,
            "kernelVersion": facts.kernel,
            "osImage": facts.os_image,
            "containerRuntimeVersion": runs,
            "kubeletVersion": f"v{config.version.removeprefix('v')}",
            "kubeProxyVersion": "",
        },
        "images": [
            {"names": [image.image_id, image.reference], "sizeBytes": image.size} for image in images[:_IMAGES_SHOWN]
        ],
        "conditions": _conditions(config, pressure, runtime, before, now),
    }


def _conditions(
    config: NodeConfig, pressure: Pressure, runtime: Mapping[str, Any] | None, before: Mapping[str, Any], now: float
) -> list[dict[str, Any]]:
    ready = runtime is not None or config.runtime_socket is None
    shown = [
        ("MemoryPressure", True, "KubeletHasInsufficientMemory", "the machine has insufficient memory available")
        if pressure.memory
        else ("MemoryPressure", False, "KubeletHasSufficientMemory", "the machine has sufficient memory available"),
        ("DiskPressure", True, "KubeletHasDiskPressure", "the machine's disk is almost full")
        if pressure.disk
        else ("DiskPressure", False, "KubeletHasNoDiskPressure", "the machine's disk has room"),
        ("PIDPressure", True, "KubeletHasInsufficientPID", "the machine has insufficient process ids available")
        if pressure.pids
        else ("PIDPressure", False, "KubeletHasSufficientPID", "the machine has sufficient process ids available"),
    ]
    shown.append(
        ("Ready", True, "KubeletReady", "the node agent is posting ready status")
        if ready
        else ("Ready", False, "KubeletNotReady", "the wasm runtime of this node does not answer")
    )
    known = {c.get("type"): c for c in before.get("conditions") or ()}
    conditions = []
    for name, met, reason, message in shown:
        status = "True" if met else "False"
        was = known.get(name) or {}
        since = was.get("lastTransitionTime") if was.get("status") == status else None
        conditions.append(
            {
                "type": name,
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": time_text(now),
                "lastTransitionTime": since or time_text(now),
            }
        )
    return conditions


def same_status(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two statuses say the same but for the time of the heartbeat."""

    def timeless(status: Mapping[str, Any]) -> dict[str, Any]:
        conditions = [{k: v for k, v in c.items() if k != "lastHeartbeatTime"} for c in status.get("conditions") or ()]
        return {**status, "conditions": conditions}

    return timeless(one) == timeless(other)
