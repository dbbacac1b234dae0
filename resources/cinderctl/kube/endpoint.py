"""Where an API server is and who we are to it. Light, for agents; credentials are files, read when connecting."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cinderctl.kube.errors import KubeError

__all__ = ["Endpoint", "ssl_context"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`server` is a URL, possibly with a path below which the API lives. Either a client certificate, a token, or
    both.
    """

    server: str
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    token: str = field(default="", repr=False)
    insecure: bool = False

    def to_json(self) -> dict[str, Any]:
        """For component files. Holds the token in clear, so it goes only into files of mode 0600."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Endpoint:
        return cls(
            server=str(value["server"]),
            ca_file=str(value.get("ca_file") or ""),
            cert_file=str(value.get("cert_file") or ""),
            key_file=str(value.get("key_file") or ""),
            token=str(value.get("token") or ""),
            insecure=bool(value.get("insecure")),
        )


def ssl_context(endpoint: Endpoint) -> ssl.SSLContext | None:
    """TLS settings for an https endpoint, None for http. Raises KubeError when a file is missing or no PEM.

    Only the cluster's own CA is trusted when one is given; the system's store otherwise, as kubectl does.
    """
    if not endpoint.server.startswith("https:"):
        return None
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file or None)
        # Kubernetes CAs made before 2020 lack the key usage bits that Python 3.13's strict mode wants; Go never asked
        # for them.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if endpoint.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if endpoint.cert_file:
            context.load_cert_chain(endpoint.cert_file, endpoint.key_file or None)
    except (OSError, ssl.SSLError) as problem:
        files = ", ".join(f for f in (endpoint.ca_file, endpoint.cert_file, endpoint.key_file) if f)
        raise KubeError(
            f"cannot load the TLS credentials for {endpoint.server}", detail=f"{files}: {problem.strerror or problem}"
        ) from problem
    return context
