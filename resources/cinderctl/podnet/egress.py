"""The API server's way to pods and nodes: the egress selector's configuration, and the task that serves it.

kube-apiserver asks a CONNECT proxy on a Unix socket for every connection to a kubelet, pod or webhook
(kubernetes.io, "Set up Konnectivity service", EgressSelectorConfiguration; transport without Konnectivity).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinderctl.podnet.table import AddressTable

__all__ = ["egress_selector_config", "serve_egress", "table_from"]


def egress_selector_config(socket: str) -> dict[str, Any]:
    """For `--egress-selector-config-file` (JSON is YAML). The group is `apiserver.k8s.io`: others are refused."""
    transport = {"uds": {"udsName": socket}}
    return {
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [
            {"name": "cluster", "connection": {"proxyProtocol": "HTTPConnect", "transport": transport}}
        ],
    }


def table_from(config: Mapping[str, Any]) -> AddressTable:
    """From `podCidr`, `block` and optionally `entries` of a component's configuration. Raises PodRangeError."""
    return AddressTable(str(config["podCidr"]), int(config["block"]), dict(config.get("entries") or {}))


async def serve_egress(config: Mapping[str, Any], root: Path) -> None:
    """Until cancelled. `config`: {"socket": path, "podCidr", "block", "entries"?}; a relative socket is below `root`.

    Raises PodRangeError, StorageError.
    """
    from cinderctl.podnet.proxy import serve  # noqa: PLC0415 - asyncio is for the supervisor, not for a plan

    await serve(root / str(config["socket"]), table_from(config))
