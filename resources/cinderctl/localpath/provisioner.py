"""The StorageClass of local-path, and the task that makes its volumes. Light: kinds import this to plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["PROVISIONER", "serve_local_path", "storage_class"]

PROVISIONER = "rancher.io/local-path"
"""The upstream provisioner's name, so that manifests written for kind and k3s work unchanged."""


def storage_class(name: str, default: bool = True) -> dict[str, Any]:
    """A StorageClass of ours: volumes are made where the first pod is scheduled, and go with their claim."""
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name} | ({"annotations": annotations} if annotations else {}),
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


async def serve_local_path(config: Mapping[str, Any], root: Path) -> None:
    """Until cancelled. `config`: {"endpoint": Endpoint.to_json(), "directory": where volumes live, below `root`
    when relative}. Serves every StorageClass whose provisioner is ours."""
    from cinderctl.kube.endpoint import Endpoint  # noqa: PLC0415 - the API client is for the supervisor, not for a plan
    from cinderctl.localpath.controller import provision_forever  # noqa: PLC0415

    await provision_forever(Endpoint.from_json(config["endpoint"]), root / str(config["directory"]))
