"""Pulls by `cinderctl.oci`, imported with the first pull: an idle node does without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinderctl.wasmnode.images import Pulled

if TYPE_CHECKING:
    from cinderctl.oci.client import RegistryClient

__all__ = ["OciPuller"]

_MAX_MODULE = 512 << 20  # bytes


class OciPuller:
    """`mirrors_file` is read again whenever it changes, so a new mirror needs no restart."""

    def __init__(self, mirrors_file: Path | None) -> None:
        self._mirrors_file = mirrors_file
        self._made: RegistryClient | None = None

    def repository(self, reference: str) -> str:
        from cinderctl.oci.reference import parse_reference  # noqa: PLC0415 - see the module's docstring

        return parse_reference(reference).name

    def resolve(self, reference: str, secrets: Sequence[Mapping[str, Any]]) -> str:
        from cinderctl.oci.reference import parse_reference  # noqa: PLC0415

        return self._client(secrets).resolve(parse_reference(reference)).digest

    def pull(self, reference: str, dest: Path, secrets: Sequence[Mapping[str, Any]]) -> Pulled:
        from cinderctl.oci.artifact import pull_module  # noqa: PLC0415
        from cinderctl.oci.reference import parse_reference  # noqa: PLC0415

        done = pull_module(self._client(secrets), parse_reference(reference), dest, max_bytes=_MAX_MODULE)
        return Pulled(done.path, done.module_digest, done.manifest_digest, done.size)

    def _client(self, secrets: Sequence[Mapping[str, Any]]) -> RegistryClient:
        from cinderctl.oci.auth import Credentials, pull_secret  # noqa: PLC0415
        from cinderctl.oci.client import RegistryClient  # noqa: PLC0415
        from cinderctl.oci.hosts import Hosts, HostsFile  # noqa: PLC0415

        if self._made is None:
            hosts = HostsFile(self._mirrors_file) if self._mirrors_file is not None else Hosts()
            self._made = RegistryClient(hosts)
        credentials = sum((pull_secret(secret) for secret in secrets), Credentials())
        return self._made.with_credentials(credentials) if secrets else self._made
