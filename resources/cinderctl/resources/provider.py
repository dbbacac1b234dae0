"""The kinds of the process provider, each made with what it works with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from cinderctl.binaries.sources import Sources
from cinderctl.engine.kinds import ResourceKind
from cinderctl.resources.artifact import ArtifactKind
from cinderctl.resources.binaries import BinariesKind
from cinderctl.resources.certificate import CertificateKind
from cinderctl.resources.cluster_api import ClusterApi
from cinderctl.resources.cni import CniKind
from cinderctl.resources.command import CommandKind
from cinderctl.resources.context import Context
from cinderctl.resources.control_plane.process import ProcessControlPlaneKind
from cinderctl.resources.file import FileKind
from cinderctl.resources.kubeconfig import KubeconfigKind
from cinderctl.resources.manifest import ManifestKind
from cinderctl.resources.registry import RegistryKind
from cinderctl.resources.registry_hosting import RegistryHostingKind
from cinderctl.resources.registry_mirror import RegistryMirrorKind
from cinderctl.resources.storage_class import StorageClassKind
from cinderctl.resources.wasm_node import WasmNodeKind

if TYPE_CHECKING:
    from cinderctl.oci.client import RegistryClient

__all__ = ["process_kinds"]


def process_kinds(
    context: Context, sources: Sources, contents: Mapping[str, bytes], version: str
) -> dict[str, ResourceKind[Any]]:
    """Kind name → kind. `contents`: digest → bytes of the spec's files. `version` is what nodes report as theirs."""
    api = ClusterApi(context.cluster)
    kinds: list[ResourceKind[Any]] = [
        ArtifactKind(context, _registry_client),
        BinariesKind(context, sources),
        CertificateKind(context),
        CniKind(context),
        CommandKind(context),
        FileKind(context, contents),
        KubeconfigKind(context, api),
        ManifestKind(context, api),
        ProcessControlPlaneKind(context, api),
        RegistryHostingKind(context, api),
        RegistryKind(context),
        RegistryMirrorKind(context),
        StorageClassKind(context, api),
        WasmNodeKind(context, api, version),
    ]
    return {kind.kind: kind for kind in kinds}


@cache
def _registry_client() -> RegistryClient:
    from cinderctl.oci.client import RegistryClient  # noqa: PLC0415 - 25 ms that only specs with artifacts have to pay

    return RegistryClient()
