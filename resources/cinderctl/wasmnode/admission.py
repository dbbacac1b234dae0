"""Which pods this node takes. A refusal is a verdict with words for the user, given once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cinderctl.wasmnode.config import NodeConfig
from cinderctl.wasmnode.podspec import Pod

__all__ = ["Refusal", "admit", "remarks"]

_ARCH_LABELS = ("kubernetes.io/arch", "beta.kubernetes.io/arch")


@dataclass(frozen=True, slots=True)
class Refusal:
    """`quiet`: the pod stays Pending instead of Failed, as its controller would make a failed one anew for ever."""

    reason: str
    message: str
    quiet: bool = False


def admit(pod: Pod, config: NodeConfig, labels: Mapping[str, str], others: int) -> Refusal | None:
    """None when the pod may run here. `labels` are the node's, `others` counts the pods it has already."""
    if pod.of_daemon_set and not _wants_arch(pod, config.arch):
        message = (
            f"this node runs WebAssembly modules ({config.arch}) and the DaemonSet does not ask for them; "
            f"to keep it off this node, exclude kubernetes.io/arch {config.arch} by node affinity"
        )
        return Refusal("UnsupportedWorkload", message, quiet=True)
    wrong = {k: v for k, v in (pod.spec.get("nodeSelector") or {}).items() if labels.get(k) != v}
    if wrong:
        pairs = ", ".join(f"{k}={v}" for k, v in sorted(wrong.items()))
        return Refusal("NodeAffinity", f"Pod was rejected: the node does not carry the labels it selects: {pairs}")
    system = (pod.spec.get("os") or {}).get("name")
    if system not in (None, "linux"):
        return Refusal("PodOSNotSupported", f"Pod was rejected: it asks for the operating system {system}")
    if others >= config.max_pods:
        return Refusal(
            "OutOfpods", f"Pod was rejected: Node didn't have enough resource: pods, capacity: {config.max_pods}"
        )
    if config.runtime_socket is None:
        return Refusal(
            "RuntimeNotAvailable",
            f"this node has no runtime for {config.arch} modules yet; run the pod on a wasm32-wasi node",
        )
    return None


def remarks(pod: Pod) -> list[str]:
    """What of the spec has no meaning for a WebAssembly module, said in one event rather than dropped silently."""
    spec = pod.spec
    ignored = [name for name in ("hostPID", "hostIPC") if spec.get(name)]
    for container in pod.all_containers:
        context = container.get("securityContext") or {}
        ignored += [f"{container['name']}: securityContext.privileged"] if context.get("privileged") else []
        ignored += [
            f"{container['name']}: {field}"
            for field in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "workingDir", "volumeDevices")
            if container.get(field)
        ]
    if spec.get("ephemeralContainers"):
        ignored.append("ephemeralContainers")
    return ignored


def _wants_arch(pod: Pod, arch: str) -> bool:
    """Whether the pod names our architecture, by node selector or required node affinity."""
    selector = pod.spec.get("nodeSelector") or {}
    if any(selector.get(label) == arch for label in _ARCH_LABELS):
        return True
    affinity: Mapping[str, Any] = (pod.spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    return any(
        rule.get("key") in _ARCH_LABELS and rule.get("operator") == "In" and arch in (rule.get("values") or ())
        for term in terms
        for rule in term.get("matchExpressions") or ()
    )
