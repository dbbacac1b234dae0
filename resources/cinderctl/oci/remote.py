"""A repository at one endpoint: each operation of the distribution specification, once, with its checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, urlencode, urljoin, urlsplit

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from cinderctl.core.digest import sha256_of
from cinderctl.oci.auth import Credentials
from cinderctl.oci.blob import CHUNK, BlobSink, Progress
from cinderctl.oci.errors import (
    BlobUnknownError,
    DigestMismatchError,
    ManifestUnknownError,
    RegistryProtocolError,
    TooLargeError,
    TruncatedError,
)
from cinderctl.oci.hosts import Endpoint
from cinderctl.oci.manifest import ACCEPT, MAX_MANIFEST, OCI_INDEX, Descriptor, Index, ManifestBytes, parse_manifest
from cinderctl.oci.reference import Reference
from cinderctl.oci.transport import Body, Request, Transport, finish, refusal, unreachable

__all__ = ["Remote"]

_ACCEPT: Final = {"Accept": ", ".join(ACCEPT)}
_MAX_TAGS: Final = 16 * 1024 * 1024  # bytes of one page
_MAX_PAGES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Remote:
    """`registry/repository` as `endpoint` serves it.

    `login_hosts`: whose logins are meant for it. `mirror_of`: the registry it mirrors, empty for the registry itself.
    `attempts`: how often to try; 0 for the transport's own number.
    """

    transport: Transport
    credentials: Credentials
    endpoint: Endpoint
    registry: str
    repository: str
    login_hosts: tuple[str, ...]
    mirror_of: str = ""
    attempts: int = 0

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"

    @property
    def origin(self) -> str:
        return self.endpoint.origin

    def send(
        self,
        method: str,
        path: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        access: str = "pull",
        attempts: int | None = None,
    ) -> BaseHTTPResponse:
        """One exchange. `path`: below the repository, or a whole URL the registry named. `what` is for error texts."""
        url = path if "://" in path else f"{self.endpoint.base}/{self.repository}/{path}"
        if self.mirror_of:  # as containerd tells a mirror of several registries which one is meant
            url += f"{'&' if '?' in url else '?'}{urlencode({'ns': self.mirror_of})}"
        request = Request(method, url, self.repository, what, headers or {}, body, access)
        tries = self.attempts if attempts is None else attempts
        return self.transport.send(self.endpoint, request, self.credentials, self.login_hosts, attempts=tries)

    def manifest(self, ref: Reference) -> ManifestBytes:
        response = self.send("GET", f"manifests/{ref.target}", str(ref), headers=_ACCEPT)
        self._expect_manifest(response, ref)
        data = self._read(response, MAX_MANIFEST, f"the manifest of {ref}")
        named = ref.digest or response.headers.get("Docker-Content-Digest", "")
        digest = sha256_of(data) if not named.startswith("sha512:") else named
        if named and not _is_of(data, named):
            raise DigestMismatchError(
                f"{self.origin} gave another manifest than the one asked for",
                detail=f"{ref}: wanted {named}, got {sha256_of(data)}",
                hint="the content was damaged or tampered with, in the registry or on the way; it was not used",
            )
        return ManifestBytes(data, _media_type(response), ref.digest or digest)

    def resolve(self, ref: Reference) -> Descriptor:
        response = self.send("HEAD", f"manifests/{ref.target}", str(ref), headers=_ACCEPT)
        if response.status != 405:
            self._expect_manifest(response, ref)
        finish(response)
        digest, size = response.headers.get("Docker-Content-Digest", ""), response.headers.get("Content-Length", "")
        whole = digest.startswith("sha256:") and len(digest) == 71 and size.isdigit() and int(size) > 0
        if response.status == 405 or not whole or ref.digest not in {"", digest}:
            found = self.manifest(ref)  # a registry that answers HEAD by halves
            return Descriptor(found.media_type, found.digest, len(found.data))
        return Descriptor(_media_type(response), digest, int(size))

    def blob_into(self, sink: BlobSink, progress: Progress | None) -> None:
        """Fetch into a sink, taking a broken body up where it broke. Rounds that bring nothing are counted."""
        descriptor, options, fruitless = sink.descriptor, self.transport.options, 0
        sink.restart()
        while True:
            before = sink.received
            broke = self._blob_round(sink, progress)
            if sink.received == descriptor.size:
                return sink.verify(self.origin)
            fruitless = 0 if sink.received > before else fruitless + 1
            if fruitless >= (self.attempts or options.attempts):
                raise TruncatedError(
                    f"{self.origin} gives only {sink.received} of {descriptor.size} bytes of {descriptor.digest}",
                    detail=broke,
                )
            options.sleep(options.pause(fruitless))

    def has_blob(self, digest: str, access: str = "pull") -> bool:
        what = f"blob {digest} of {self.name}"
        response = self.send("HEAD", f"blobs/{digest}", what, access=access)
        if response.status not in {200, 404}:
            raise refusal(response, what, self.endpoint)
        finish(response)
        return response.status == 200

    def tags(self) -> Iterator[str]:
        path, what = "tags/list", f"the tags of {self.name}"
        for _ in range(_MAX_PAGES):
            response = self.send("GET", path, what)
            if response.status == 404:
                finish(response)
                raise ManifestUnknownError(f"{self.name} is not at {self.origin}")
            if response.status != 200:
                raise refusal(response, what, self.endpoint)
            tags = _object(self._read(response, _MAX_TAGS, what), what).get("tags") or []
            if not isinstance(tags, list):
                raise RegistryProtocolError(f"{self.origin} gives {what} as no list")
            yield from (tag for tag in tags if isinstance(tag, str))
            following = _next_page(response.headers.get("Link", ""))
            if not following:
                return
            path = urljoin(f"{self.endpoint.base}/{self.repository}/tags/list", following)
            if not path.startswith(f"{self.origin}/"):
                raise RegistryProtocolError(f"{self.origin} continues {what} elsewhere")
        raise RegistryProtocolError(f"{self.origin} gives {what} without end")

    def referrers(self, ref: Reference, artifact_type: str) -> list[Descriptor]:
        """What refers to the manifest `ref.digest`: the API of specification 1.1, else the tag older registries use."""
        what = f"the referrers of {ref}"
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        response = self.send("GET", f"referrers/{ref.digest}{query}", what, headers={"Accept": OCI_INDEX})
        if response.status == 200:
            data = self._read(response, MAX_MANIFEST, what)
        else:
            if response.status not in {404, 405}:
                raise refusal(response, what, self.endpoint)
            finish(response)
            try:
                data = self.manifest(replace(ref, tag=ref.digest.replace(":", "-"), digest="")).data
            except ManifestUnknownError:
                return []
        index = parse_manifest(data, OCI_INDEX, what)
        found = index.manifests if isinstance(index, Index) else ()
        return [item for item in found if artifact_type in {"", item.artifact_type}]

    def begin_upload(self, digest: str, mount_from: str = "") -> str:
        """Where to PUT the blob, with its digest; nothing when the registry mounted it from `mount_from`."""
        what = f"the push of blob {digest} to {self.name}"
        query = "?" + urlencode({"mount": digest, "from": mount_from}) if mount_from else ""
        response = self.send("POST", f"blobs/uploads/{query}", what, access="pull,push")
        if response.status not in {201, 202}:
            raise refusal(response, what, self.endpoint)
        finish(response)
        if response.status == 201:
            return ""
        location = response.headers.get("Location", "")
        url = urljoin(f"{self.endpoint.base}/{self.repository}/blobs/uploads/", location)
        if not location or urlsplit(url).scheme not in {"http", "https"}:
            raise RegistryProtocolError(f"{self.origin} does not say where to send the blob")
        if not self.endpoint.plain_http and url.startswith("http://"):
            # A registry behind a proxy that ends TLS may call itself http; never follow it out of TLS.
            url = f"https://{url.removeprefix('http://')}"
        return f"{url}{'&' if '?' in url else '?'}digest={quote(digest)}"

    def put_manifest(self, target: str, data: bytes, media_type: str) -> str:
        """Returns the digest. `target` is a tag or the digest."""
        what, digest = f"the push of {self.name}:{target}", sha256_of(data)
        headers = {"Content-Type": media_type}
        response = self.send("PUT", f"manifests/{target}", what, headers=headers, body=data, access="pull,push")
        if response.status not in {200, 201, 202}:
            raise refusal(response, what, self.endpoint)
        finish(response)
        named = response.headers.get("Docker-Content-Digest", digest)
        if named.startswith("sha256:") and named != digest:
            raise DigestMismatchError(f"{self.origin} stored {what} as {named}, what was sent is {digest}")
        return digest

    def delete_manifest(self, ref: Reference) -> bool:
        response = self.send("DELETE", f"manifests/{ref.target}", f"the deletion of {ref}", access="delete")
        if response.status not in {200, 202, 404}:
            raise refusal(response, f"the deletion of {ref}", self.endpoint)
        finish(response)
        return response.status != 404

    def _blob_round(self, sink: BlobSink, progress: Progress | None) -> str:
        """One request and as much of its body as comes. Returns why the body ended early, if it did."""
        descriptor = sink.descriptor
        what = f"blob {descriptor.digest} of {self.name}"
        headers = {"Range": f"bytes={sink.received}-{descriptor.size - 1}"} if sink.received else {}
        response = self.send("GET", f"blobs/{descriptor.digest}", what, headers=headers)
        with closing(response):
            if response.status == 404:
                raise BlobUnknownError(f"{what} is not at {self.origin}")
            if response.status not in {200, 206}:
                raise refusal(response, what, self.endpoint)
            if response.status == 200:  # from the start, whether or not that was asked for
                if sink.received:
                    sink.restart()
                declared = response.headers.get("Content-Length", "")
                if declared.isdigit() and int(declared) != descriptor.size:
                    raise DigestMismatchError(
                        f"{what} has {declared} bytes at {self.origin}, its descriptor says {descriptor.size}"
                    )
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {sink.received}-"):
                raise RegistryProtocolError(f"{self.origin} gave another range of {what} than the one asked for")
            body = response.stream(CHUNK, decode_content=False)
            while True:
                try:
                    chunk = next(body, None)
                except (HTTPError, OSError) as error:
                    return str(error)
                if chunk is None:
                    return "the body ended early"
                sink.write(chunk)
                if progress is not None:
                    progress(sink.received, descriptor.size)

    def _expect_manifest(self, response: BaseHTTPResponse, ref: Reference) -> None:
        if response.status == 404:
            finish(response)
            raise ManifestUnknownError(f"{ref} is not at {self.origin}")
        if response.status != 200:
            raise refusal(response, str(ref), self.endpoint)

    def _read(self, response: BaseHTTPResponse, limit: int, what: str) -> bytes:
        with closing(response):
            try:
                data = response.read(limit + 1, decode_content=False)
                if len(data) > limit:
                    raise TooLargeError(f"{what} at {self.origin} has more than {limit} bytes")
            except (HTTPError, OSError) as error:
                raise unreachable(error, self.origin) from error
        return data


def _media_type(response: BaseHTTPResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip()


def _is_of(data: bytes, digest: str) -> bool:
    """Whether a digest is of these bytes; one of an algorithm we do not know proves nothing."""
    algorithm, _, encoded = digest.partition(":")
    return algorithm not in {"sha256", "sha512"} or hashlib.new(algorithm, data).hexdigest() == encoded


def _object(data: bytes, what: str) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RegistryProtocolError(f"{what} are not JSON") from error
    if not isinstance(value, dict):
        raise RegistryProtocolError(f"{what} are no JSON object")
    return value


def _next_page(link: str) -> str:
    """The target of `<...>; rel="next"`."""
    for part in link.split(","):
        target, _, parameters = part.partition(">")
        if "next" in parameters:
            return target.strip().removeprefix("<")
    return ""
