"""Pull and push by the OCI distribution specification, every byte checked against its digest and size.

Reads ask the mirrors of a registry in order, then the registry; writes go to the registry itself. One client may be
shared by threads; `with_credentials` gives another that shares its connections and tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from cinderctl.core.digest import sha256_of
from cinderctl.oci.auth import Credentials
from cinderctl.oci.blob import BlobFile, BlobMemory, BlobSink, PartFile, Progress, digest_of_file
from cinderctl.oci.errors import DigestMismatchError, OciError, RegistryUnreachableError, TooLargeError
from cinderctl.oci.hosts import Endpoint, Hosts
from cinderctl.oci.manifest import MAX_MANIFEST, Descriptor, ManifestBytes
from cinderctl.oci.reference import Reference
from cinderctl.oci.remote import Remote
from cinderctl.oci.transport import NameUnknownError, Options, Transport
from cinderctl.oci.upload import put_blob

__all__ = ["RegistryClient"]

T = TypeVar("T")

_REST_SECONDS: Final = 30.0  # how long an endpoint that could not be reached is asked last


class RegistryClient:
    """Talks to every registry `hosts` leads to. `hosts` may be a callable that gives them anew (a `HostsFile`).

    Every method raises `OciError`s; which ones, the tree in `errors` says.
    """

    def __init__(
        self,
        hosts: Hosts | Callable[[], Hosts] | None = None,
        credentials: Credentials | None = None,
        options: Options | None = None,
        *,
        transport: Transport | None = None,
    ) -> None:
        known = hosts or Hosts()
        self._hosts: Callable[[], Hosts] = (lambda: known) if isinstance(known, Hosts) else known
        self._credentials = credentials or Credentials()
        self._transport = transport or Transport(options or Options())

    def with_credentials(self, credentials: Credentials) -> RegistryClient:
        """Another client with these logins alone, on the same connections."""
        return RegistryClient(self._hosts, credentials, transport=self._transport)

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def resolve(self, ref: Reference) -> Descriptor:
        """What the reference stands for now, by HEAD where the registry answers it fully."""
        return self._from_first(ref, lambda remote: remote.resolve(ref))

    def manifest(self, ref: Reference) -> ManifestBytes:
        """The manifest or index; checked against the reference's digest, else against the one the registry names."""
        return self._from_first(ref, lambda remote: remote.manifest(ref))

    def blob_to(
        self, ref: Reference, descriptor: Descriptor, dest: Path, progress: Progress | None = None, *, mode: int = 0o600
    ) -> Path:
        """Stream a blob into a file, which appears whole, synced and with `mode`, or not at all. Returns `dest`.

        A connection that breaks is taken up where it broke. Raises also: StorageError, and what `progress` raises.
        """
        with PartFile(dest, mode) as file:
            self.blob_into(ref, BlobFile(file, descriptor), progress)
            file.commit()
        return dest

    def blob_bytes(self, ref: Reference, descriptor: Descriptor, limit: int = MAX_MANIFEST) -> bytes:
        """A small blob in memory. Raises also: TooLargeError above `limit` bytes."""
        if descriptor.size > limit:
            raise TooLargeError(f"blob {descriptor.digest} of {ref.name} has {descriptor.size} bytes, over {limit}")
        sink = BlobMemory(descriptor)
        self.blob_into(ref, sink)
        return bytes(sink.data)

    def blob_into(self, ref: Reference, sink: BlobSink, progress: Progress | None = None) -> None:
        """Stream a blob into a sink, verified."""
        self._from_first(ref, lambda remote: remote.blob_into(sink, progress))

    def tags(self, ref: Reference) -> list[str]:
        """All tags of the repository, as the registry orders them."""
        return self._from_first(ref, lambda remote: list(remote.tags()))

    def referrers(self, ref: Reference, artifact_type: str = "") -> list[Descriptor]:
        """What refers to the manifest (signatures, attestations)."""
        pinned = ref if ref.digest else ref.at(self.resolve(ref).digest)
        return self._from_first(pinned, lambda remote: remote.referrers(pinned, artifact_type))

    def has_blob(self, ref: Reference, digest: str) -> bool:
        """Whether the registry itself, not a mirror, has the blob in this repository."""
        return self._writable(ref).has_blob(digest)

    def push_blob(
        self,
        ref: Reference,
        content: bytes | Path,
        *,
        media_type: str = "application/octet-stream",
        mount_from: str = "",
        progress: Progress | None = None,
    ) -> Descriptor:
        """Upload a blob unless the repository has it; `mount_from` is a repository of that registry to take it from.

        A broken upload is begun anew, within the bounds of the retries. Raises also: StorageError.
        """
        if isinstance(content, bytes):
            digest, size = sha256_of(content), len(content)
        else:
            digest, size = digest_of_file(content)
        descriptor = Descriptor(media_type, digest, size)
        remote = self._writable(ref)
        if not remote.has_blob(digest, "pull,push"):
            put_blob(remote, descriptor, content, mount_from, progress)
        return descriptor

    def push_manifest(self, ref: Reference, data: bytes, media_type: str) -> str:
        """Put a manifest under the reference's tag, or its digest when it has no tag. Returns the digest."""
        digest = sha256_of(data)
        if ref.digest and ref.digest != digest:
            raise DigestMismatchError(f"the manifest for {ref} has digest {digest}")
        return self._writable(ref).put_manifest(ref.tag or digest, data, media_type)

    def delete_manifest(self, ref: Reference) -> bool:
        """Delete by tag or digest; False when there was none. Raises also: RegistryRefusedError (deletion is off)."""
        return self._writable(ref).delete_manifest(ref)

    def _from_first(self, ref: Reference, ask: Callable[[Remote], T]) -> T:
        """The answer of the first endpoint that has one; those that were lately out of reach are asked last."""
        remotes = self._readable(ref)
        failures: list[tuple[Remote, OciError]] = []
        for remote in remotes:
            try:
                return ask(remote)
            except OciError as error:
                failures.append((remote, error))
                if isinstance(error, RegistryUnreachableError):
                    self._transport.rest(remote.origin, _REST_SECONDS)
        raise _verdict(failures) from failures[-1][1]

    def _readable(self, ref: Reference) -> list[Remote]:
        hosts = self._hosts()
        own = hosts.push_endpoint(ref.registry)
        exclusive = ref.registry in hosts.exclusive
        endpoints = sorted(hosts.endpoints_for(ref.registry), key=lambda one: self._transport.rests(one.origin))
        last = len(endpoints) - 1
        return [
            # One attempt while another endpoint follows: falling back is the quicker retry.
            self._remote(ref, endpoint, own=endpoint == own, exclusive=exclusive, attempts=1 if number < last else 0)
            for number, endpoint in enumerate(endpoints)
        ]

    def _writable(self, ref: Reference) -> Remote:
        hosts = self._hosts()
        return self._remote(ref, hosts.push_endpoint(ref.registry), own=True, exclusive=ref.registry in hosts.exclusive)

    def _remote(self, ref: Reference, endpoint: Endpoint, *, own: bool, exclusive: bool, attempts: int = 0) -> Remote:
        """A registry's logins are for itself and for a mirror that is all there is of it; other mirrors have theirs."""
        hosts = (ref.registry,) if own else ((ref.registry, endpoint.host) if exclusive else (endpoint.host,))
        mirror_of = "" if own or endpoint.host == ref.registry else ref.registry
        return Remote(
            self._transport, self._credentials, endpoint, ref.registry, ref.repository, hosts, mirror_of, attempts
        )


def _verdict(failures: list[tuple[Remote, OciError]]) -> OciError:
    """The failure to report: the registry's own, unless its name does not resolve and a mirror had an answer."""
    if len(failures) == 1:
        return failures[0][1]
    own = [error for remote, error in failures if not remote.mirror_of]
    chosen = own[0] if own else failures[0][1]
    if isinstance(chosen, NameUnknownError):
        chosen = next((error for _, error in failures if not isinstance(error, RegistryUnreachableError)), chosen)
    said = [(error, d) for _, error in failures for d in error.diagnostics if error is not chosen]
    detail = "; ".join([chosen.diagnostics[0].detail, *(d.summary for _, d in said)]).strip("; ")
    return type(chosen)(str(chosen), detail=detail, hint=chosen.diagnostics[0].hint)
