"""The way kinds reach the cluster's own API server, found from what the world says, never from memory."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from cinderctl.host.control import read_components
from cinderctl.host.dirs import ClusterDir
from cinderctl.kube.endpoint import Endpoint

if TYPE_CHECKING:
    from cinderctl.kube.client import KubeClient

__all__ = ["ClusterApi", "admin_endpoint", "server_of"]

_API_SERVER = "kube-apiserver"


def server_of(cluster: ClusterDir) -> str:
    """URL of the API server of a cluster directory; "" when it has no control plane."""
    component = read_components(cluster).get(_API_SERVER)
    return component.probe.target.removesuffix("/readyz") if component else ""


def admin_endpoint(cluster: ClusterDir, server: str) -> Endpoint:
    """The cluster's administrator, by client certificate."""
    pki = cluster.pki
    return Endpoint(
        server, ca_file=str(pki / "ca.crt"), cert_file=str(pki / "admin.crt"), key_file=str(pki / "admin.key")
    )


class ClusterApi:
    """One client for all kinds of a run, made at first use and again when the server moved."""

    def __init__(self, cluster: ClusterDir) -> None:
        self._cluster = cluster
        self._lock = Lock()
        self._server = ""
        self._client: KubeClient | None = None

    def client(self) -> KubeClient | None:
        """None when there is no control plane: then nothing that lives in one exists either."""
        server = server_of(self._cluster)
        if not server:
            return None
        from cinderctl.kube.client import KubeClient  # noqa: PLC0415 - 30 ms that the first start need not pay at once

        with self._lock:
            if self._client is None or server != self._server:
                self._client = KubeClient.from_endpoint(admin_endpoint(self._cluster, server))
                self._server = server
            return self._client

    def takes_pods(self, namespace: str = "default") -> bool | None:
        """Whether a pod can be made there: its default service account appears a moment after the namespace.

        None for "not yet", as a condition to wait for. Raises: KubeError; LookupError without a control plane.
        """
        account = self.require().get_or_none(f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
        return True if account else None

    def require(self) -> KubeClient:
        """The client, where the graph has made sure of a control plane. Raises: LookupError."""
        client = self.client()
        if client is None:
            raise LookupError("no control plane")
        return client
