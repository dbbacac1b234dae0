"""The environment and arguments of a container, by the rules of the downward API and of `$(VAR)` expansion."""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.kube.resources import parse_quantity
from cinderctl.wasmnode.objects import Objects
from cinderctl.wasmnode.podspec import Pod

__all__ = ["ContainerConfigError", "PodFacts", "arguments", "environment", "expand", "field_value", "resource_value"]

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_NAME = re.compile(r"[-._a-zA-Z0-9]+")


class ContainerConfigError(CinderError):
    """A container cannot be made as its spec wants it; the text is what the kubelet would say."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the downward API knows beside the pod itself. `memory` in bytes and `cpus` stand in for limits not set."""

    host_ip: str
    pod_ip: str
    memory: int
    cpus: int


def expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value, `$$` a dollar; what is not known stays as it is."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return known.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


def arguments(container: Mapping[str, Any], env: Mapping[str, str]) -> tuple[str, ...]:
    """What the guest sees as argv: `command` and `args`. There is no argv[0] without a `command`.

    Raises: ContainerConfigError for what WASI would silently cut.
    """
    argv = tuple(expand(str(a), env) for a in (*(container.get("command") or ()), *(container.get("args") or ())))
    if any("\0" in argument for argument in argv):
        raise ContainerConfigError("an argument contains a NUL character")
    return argv


async def environment(container: Mapping[str, Any], pod: Pod, facts: PodFacts, objects: Objects) -> dict[str, str]:
    """`envFrom` first, then `env`, later ones winning, each able to use what stands before it.

    Raises: ContainerConfigError naming the ConfigMap, Secret, key or field that is missing; KubeError.
    """
    env: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        env.update(await _from_source(source, pod, objects))
    expandable = dict(env)
    for item in container.get("env") or ():
        name = str(item["name"])
        if item.get("valueFrom"):
            value = await _value_from(item["valueFrom"], container, pod, facts, objects)
            if value is None:
                continue
        else:
            value = expand(str(item.get("value") or ""), expandable)
        env[name] = expandable[name] = value
    for name, value in env.items():
        if "\0" in value:
            raise ContainerConfigError(f"environment variable {name} contains a NUL character")
    return env


async def _from_source(source: Mapping[str, Any], pod: Pod, objects: Objects) -> dict[str, str]:
    prefix = str(source.get("prefix") or "")
    if source.get("configMapRef"):
        data = await _config_map(source["configMapRef"], pod, objects)
    else:
        data = await _secret(source.get("secretRef") or {}, pod, objects)
    return {prefix + key: value for key, value in (data or {}).items() if _NAME.fullmatch(prefix + key)}


async def _value_from(
    source: Mapping[str, Any], container: Mapping[str, Any], pod: Pod, facts: PodFacts, objects: Objects
) -> str | None:
    """None for an optional one that is not there."""
    if source.get("fieldRef"):
        return field_value(str(source["fieldRef"].get("fieldPath", "")), pod, facts)
    if source.get("resourceFieldRef"):
        ref = source["resourceFieldRef"]
        name = ref.get("containerName")
        subject = pod.container(name) if name else container
        if subject is None:
            raise ContainerConfigError(f"resourceFieldRef names container {name!r}, which the pod does not have")
        return resource_value(ref, subject, facts)
    for kind, word, load in (("configMapKeyRef", "ConfigMap", _config_map), ("secretKeyRef", "Secret", _secret)):
        ref = source.get(kind)
        if not ref:
            continue
        data = await load(ref, pod, objects)
        if data is None or str(ref["key"]) not in data:
            if ref.get("optional"):
                return None
            raise ContainerConfigError(
                f"couldn't find key {ref['key']} in {word} {pod.namespace}/{ref.get('name', '')}"
            )
        return data[str(ref["key"])]
    raise ContainerConfigError(f"unknown source of an environment variable: {', '.join(source)}")


async def _config_map(ref: Mapping[str, Any], pod: Pod, objects: Objects) -> dict[str, str] | None:
    name = str(ref.get("name", ""))
    found = await objects.config_map(pod.namespace, name)
    if found is None:
        _unless_optional(ref, f'configmap "{name}" not found')
        return None
    return dict(found.get("data") or {})


async def _secret(ref: Mapping[str, Any], pod: Pod, objects: Objects) -> dict[str, str] | None:
    name = str(ref.get("name", ""))
    found = await objects.secret(pod.namespace, name)
    if found is None:
        _unless_optional(ref, f'secret "{name}" not found')
        return None
    return {k: b64decode(v).decode(errors="replace") for k, v in (found.get("data") or {}).items()}


def _unless_optional(ref: Mapping[str, Any], message: str) -> None:
    if not ref.get("optional"):
        raise ContainerConfigError(message)


def field_value(path: str, pod: Pod, facts: PodFacts) -> str:
    """A `fieldRef`. Raises: ContainerConfigError for a path the downward API does not have."""
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript is not None:
        values: Mapping[str, str] = pod.labels if subscript[1] == "labels" else pod.annotations
        return str(values.get(subscript[2], ""))
    simple = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "spec.nodeName": str(pod.spec.get("nodeName") or ""),
        "spec.serviceAccountName": pod.service_account,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
    }
    if path in simple:
        return simple[path]
    if path in ("metadata.labels", "metadata.annotations"):
        whole: Mapping[str, str] = pod.labels if path.endswith("labels") else pod.annotations
        return "\n".join(f"{key}={_quoted(value)}" for key, value in sorted(whole.items()))
    raise ContainerConfigError(f"unsupported fieldPath: {path}")


def _quoted(text: str) -> str:
    """As Go's %q prints what annotations hold."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'


def resource_value(ref: Mapping[str, Any], container: Mapping[str, Any], facts: PodFacts) -> str:
    """A `resourceFieldRef`: the quantity in units of its divisor, rounded up. An absent limit is the node's whole.

    Raises: ContainerConfigError for a resource the downward API does not have.
    """
    kind, _, name = str(ref.get("resource", "")).partition(".")
    if kind not in ("limits", "requests") or name not in ("cpu", "memory", "ephemeral-storage"):
        raise ContainerConfigError(f"unsupported container resource: {ref.get('resource')}")
    resources = container.get("resources") or {}
    given = (resources.get(kind) or {}).get(name)
    if given is None and kind == "limits":
        amount = Decimal({"cpu": facts.cpus, "memory": facts.memory}.get(name, 0))
    else:
        amount = parse_quantity(given or "0")
    divisor = parse_quantity(ref.get("divisor") or "1") or Decimal(1)
    return str(math.ceil((amount / divisor).quantize(Decimal("1e-9"), ROUND_CEILING)))
