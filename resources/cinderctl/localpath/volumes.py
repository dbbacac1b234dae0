"""What a claim asks for and what a volume is, in words of the Kubernetes API. Pure.

Annotations and the order of things are those of the external provisioner protocol (kubernetes.io, "Dynamic Volume
Provisioning"; sig-storage-lib-external-provisioner): the controller-manager names the provisioner on the claim, the
scheduler the node, then the volume is made and bound by the controller-manager.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinderctl.localpath.provisioner import PROVISIONER

__all__ = [
    "SELECTED_NODE",
    "directory_of",
    "is_released",
    "persistent_volume",
    "refusal",
    "selected_node",
    "volume_name",
    "wants_volume",
]

SELECTED_NODE = "volume.kubernetes.io/selected-node"
_PROVISIONER_OF_CLAIM = ("volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner")
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_HOSTNAME = "kubernetes.io/hostname"
_MODES = frozenset({"ReadWriteOnce", "ReadWriteOncePod"})
_NAME_BYTES = 255  # of a file name (NAME_MAX)


def wants_volume(claim: Mapping[str, Any]) -> bool:
    """Whether a claim waits for a volume of ours: named to us, unbound, not about to go."""
    metadata, spec = claim["metadata"], claim.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    ours = any(annotations.get(name) == PROVISIONER for name in _PROVISIONER_OF_CLAIM)
    return ours and not spec.get("volumeName") and not metadata.get("deletionTimestamp")


def selected_node(claim: Mapping[str, Any]) -> str:
    """The node the scheduler chose for the claim's first pod; "" until then."""
    return str((claim["metadata"].get("annotations") or {}).get(SELECTED_NODE) or "")


def refusal(claim: Mapping[str, Any], storage_class: Mapping[str, Any]) -> str:
    """Why no volume can be made for a claim whatever happens; "" when one can."""
    spec = claim["spec"]
    others = [mode for mode in spec.get("accessModes") or () if mode not in _MODES]
    if others:
        return f"access mode {', '.join(others)} is not supported: a local volume is for one node (ReadWriteOnce)"
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        return "volumeMode Block is not supported: a local volume is a directory"
    if spec.get("selector"):
        return "a selector is not supported: volumes are made for the claim"
    if spec.get("dataSource") or spec.get("dataSourceRef"):
        return "a data source is not supported: a local volume begins empty"
    if storage_class.get("volumeBindingMode") != "WaitForFirstConsumer" and not selected_node(claim):
        return (
            f"StorageClass {storage_class['metadata']['name']} needs volumeBindingMode WaitForFirstConsumer: "
            "a local volume is made on the node of its first pod"
        )
    return ""


def volume_name(claim: Mapping[str, Any]) -> str:
    """One name for each claim that ever was, so that a repeated attempt finds its own volume."""
    return f"pvc-{claim['metadata']['uid']}"


def directory_of(claim: Mapping[str, Any], directory: Path) -> Path:
    """Where the claim's data lives: `<volume>_<namespace>_<claim>`, cut to what a file name may hold."""
    metadata = claim["metadata"]
    return directory / f"{volume_name(claim)}_{metadata['namespace']}_{metadata['name']}"[:_NAME_BYTES]


def persistent_volume(
    claim: Mapping[str, Any], storage_class: Mapping[str, Any], node: Mapping[str, Any], directory: Path
) -> dict[str, Any]:
    """The volume for a claim on a node, reserved for that claim."""
    metadata, spec = claim["metadata"], claim["spec"]
    node_name = node["metadata"]["name"]
    hostname = (node["metadata"].get("labels") or {}).get(_HOSTNAME) or node_name
    term = {"matchExpressions": [{"key": _HOSTNAME, "operator": "In", "values": [hostname]}]}
    options = storage_class.get("mountOptions")
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": volume_name(claim),
            "annotations": {_PROVISIONED_BY: PROVISIONER, "local.path.provisioner/selected-node": node_name},
        },
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "hostPath": {"path": str(directory_of(claim, directory)), "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "storageClassName": storage_class["metadata"]["name"],
            "volumeMode": "Filesystem",
            **({"mountOptions": options} if options else {}),
        },
    }


def is_released(volume: Mapping[str, Any]) -> bool:
    """Whether a volume of ours lost its claim and is to be removed with its data (reclaim policy Delete)."""
    metadata, spec = volume["metadata"], volume.get("spec") or {}
    return (
        (metadata.get("annotations") or {}).get(_PROVISIONED_BY) == PROVISIONER
        and (volume.get("status") or {}).get("phase") in {"Released", "Failed"}
        and spec.get("persistentVolumeReclaimPolicy") == "Delete"
        and not metadata.get("deletionTimestamp")
    )
