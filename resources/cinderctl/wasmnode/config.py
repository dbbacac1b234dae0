"""What an agent is told: one JSON file, written by the `wasm_node` kind, read once at start."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError, Diagnostic

__all__ = ["ARCHITECTURES", "ConfigError", "NodeConfig", "Timing", "load_config", "parse_config"]

ARCHITECTURES = ("wasm32-wasi", "wasm32-wascc")


class ConfigError(CinderError):
    """The file cannot be used; one diagnostic for each field."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Every period of the agent, in seconds. The defaults are the kubelet's, so that users meet what they know."""

    lease: float = 40
    lease_renewal: float = 10
    node_check: float = 10  # how often capacity and conditions are looked at
    node_report: float = 300  # an unchanged status is repeated this often
    backoff_first: float = 10
    backoff_most: float = 300
    backoff_reset: float = 600  # a container that ran this long starts with a clean slate
    pull_backoff_first: float = 10
    pull_backoff_most: float = 300
    setup_retry_first: float = 0.5  # volumes, configuration
    setup_retry_most: float = 30
    creating_after: float = 0.15  # a start slower than this is shown as ContainerCreating
    refresh: float = 60  # ConfigMap, Secret and token volumes of running pods
    api_retry_first: float = 0.2
    api_retry_most: float = 10
    runtime_grace: float = 5  # how long the runtime may be away (restarting) before the node says so
    access_allowed: float = 300  # how long an answer about a caller is believed
    access_denied: float = 30
    collect: float = 300  # garbage collection
    last_words: float = 3  # what an ending agent spends on statuses and records not yet out
    image_age: float = 7 * 86400  # an image nobody used for this long goes
    image_age_full: float = 120  # the same when the disk is almost full (85 %, the kubelet's threshold)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """`node_ip` and `pod_cidr` are what Kubernetes is told; `listen_address` is where the kubelet API really listens.

    `pod_cidr` empty: pods have the node's address. `runtime_socket` None: this node runs nothing yet.
    `host_path_prefixes` empty: every path may be mounted.
    """

    cluster: str
    node_name: str
    arch: str
    server: str
    ca_file: str
    directory: Path
    node_ip: str
    listen_address: str
    port: int
    bootstrap_token: str = field(default="", repr=False)
    runtime_socket: Path | None = None
    pod_cidr: str = ""
    block: int = 0
    mirrors_file: Path | None = None
    max_pods: int = 110
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    cluster_domain: str = "cluster.local"
    allow_local_modules: bool = False
    restart_bare_pods: bool = False
    host_path_prefixes: tuple[str, ...] = ()
    version: str = "0.0.0"

    @property
    def pods_dir(self) -> Path:
        return self.directory / "pods"

    @property
    def images_dir(self) -> Path:
        return self.directory / "images"

    @property
    def pki_dir(self) -> Path:
        return self.directory / "pki"


_REQUIRED = ("nodeName", "arch", "server", "directory", "nodeIP", "listenAddress", "port")
_TEXTS = (
    "cluster",
    "nodeName",
    "arch",
    "server",
    "caFile",
    "bootstrapToken",
    "directory",
    "runtimeSocket",
    "nodeIP",
    "listenAddress",
    "podCidr",
    "mirrorsFile",
    "clusterDomain",
    "version",
)
_NUMBERS = ("port", "block", "maxPods")
_FLAGS = ("allowLocalModules", "restartBarePods")


def load_config(path: Path) -> NodeConfig:
    """Raises: ConfigError, which names every field that cannot be used."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the node agent's configuration {path} cannot be read", detail=str(error)) from error
    return parse_config(value, source=str(path))


def parse_config(value: Any, source: str = "") -> NodeConfig:
    """Raises: ConfigError."""
    if not isinstance(value, dict):
        raise ConfigError("the node agent's configuration is no JSON object")
    problems = [Diagnostic(text, path=(name,), source=source) for name, text in _problems(value)]
    if problems:
        raise ConfigError(problems)

    def text(name: str, default: str = "") -> str:
        return str(value.get(name) or default)

    def path(name: str) -> Path | None:
        return Path(text(name)) if text(name) else None

    return NodeConfig(
        cluster=text("cluster"),
        node_name=text("nodeName"),
        arch=text("arch"),
        server=text("server"),
        ca_file=text("caFile"),
        directory=Path(text("directory")),
        node_ip=text("nodeIP"),
        listen_address=text("listenAddress"),
        port=int(value["port"]),
        bootstrap_token=text("bootstrapToken"),
        runtime_socket=path("runtimeSocket"),
        pod_cidr=text("podCidr"),
        block=int(value.get("block") or 0),
        mirrors_file=path("mirrorsFile"),
        max_pods=int(value.get("maxPods") or 110),
        labels={str(k): str(v) for k, v in (value.get("labels") or {}).items()},
        annotations={str(k): str(v) for k, v in (value.get("annotations") or {}).items()},
        taints=tuple({str(k): str(v) for k, v in taint.items()} for taint in value.get("taints") or ()),
        cluster_domain=text("clusterDomain", "cluster.local"),
        allow_local_modules=bool(value.get("allowLocalModules")),
        restart_bare_pods=bool(value.get("restartBarePods")),
        host_path_prefixes=tuple(str(p) for p in value.get("hostPathPrefixes") or ()),
        version=text("version", "0.0.0"),
    )


def _problems(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [(name, f"`{name}` is missing") for name in _REQUIRED if value.get(name) in (None, "")]
    for names, kind, word in (
        (_TEXTS, str, "text"),
        (_NUMBERS, int, "a whole number"),
        (_FLAGS, bool, "true or false"),
    ):
        for name in names:
            item = value.get(name)
            if item is not None and (not isinstance(item, kind) or (kind is int and isinstance(item, bool))):
                found.append((name, f"`{name}` must be {word}, not {item!r}"))
    if found:
        return found
    if value["arch"] not in ARCHITECTURES:
        found.append(("arch", f"`arch` must be one of {', '.join(ARCHITECTURES)}, not {value['arch']!r}"))
    if not 0 < value["port"] < 65536:
        found.append(("port", f"`port` must be between 1 and 65535, not {value['port']}"))
    if value.get("maxPods") is not None and value["maxPods"] < 1:
        found.append(("maxPods", "`maxPods` must be at least 1"))
    found += [
        (name, f"`{name}` must be an IP address, not {value[name]!r}")
        for name in ("nodeIP", "listenAddress")
        if not _is(ipaddress.ip_address, value[name])
    ]
    if value.get("podCidr") and not _is(ipaddress.ip_network, value["podCidr"]):
        found.append(("podCidr", f"`podCidr` must be an address range such as 10.244.1.0/24, not {value['podCidr']!r}"))
    if not Path(value["directory"]).is_absolute():
        found.append(("directory", "`directory` must be an absolute path"))
    return found


def _is(parse: Any, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
