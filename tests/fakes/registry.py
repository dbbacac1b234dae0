"""A small OCI registry on loopback, with faults: what a test needs of the distribution specification, in memory.

with FakeRegistry() as registry:
    registry.fail("GET", r"/blobs/", Truncate(10))          # the next such answer ends after 10 bytes of its body
    registry.fail("GET", r"/manifests/", Status(429, {"Retry-After": "0"}), times=2)
    registry.requests                                        # every request so far: method, path, headers
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

__all__ = ["Corrupt", "Drop", "Endless", "FakeRegistry", "Hold", "Redirect", "Seen", "Status", "Truncate", "digest_of"]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Status:
    """Answer with this status instead."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Truncate:
    """Announce the whole body, send this many bytes of it, close the connection."""

    after: int


@dataclass(frozen=True)
class Corrupt:
    """Flip a bit of the last byte; the length stays."""


@dataclass(frozen=True)
class Endless:
    """Send the body, then go on for as long as the client reads (chunked, so without a length)."""


@dataclass(frozen=True)
class Drop:
    """Close the connection without an answer, before the request's body is read."""


@dataclass(frozen=True)
class Hold:
    """Wait for the event before answering: a slow registry without a clock."""

    until: threading.Event


@dataclass(frozen=True)
class Redirect:
    """Send the client elsewhere."""

    to: str
    code: int = 307


Fault = Status | Truncate | Corrupt | Endless | Drop | Hold | Redirect


@dataclass
class _Armed:
    method: str
    path: re.Pattern[str]
    fault: Fault
    times: int


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


class FakeRegistry:
    """`blobs` and `manifests` are open for a test to fill and to damage. `basic` or `bearer` turn access control on."""

    def __init__(
        self,
        *,
        basic: tuple[str, str] | None = None,
        bearer: bool = False,
        users: dict[str, str] | None = None,
        anonymous_pull: bool = False,
        tls: ssl.SSLContext | None = None,
        ranges: bool = True,
        page: int = 100,
        referrers: bool = True,
    ) -> None:
        self.basic = basic
        self.bearer = bearer
        self.users = users or {}
        self.anonymous_pull = anonymous_pull
        self.ranges = ranges
        self.page = page
        self.referrers = referrers
        self.expires_in: Any = 300
        self.realm = ""  # set to name another token server
        self.tokens: dict[str, str] = {}  # token -> scope
        self.refresh_tokens: set[str] = set()
        self.blobs: dict[tuple[str, str], bytes] = {}  # (repository, digest) -> what is sent for it
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}  # (repository, tag or digest) -> media type, body
        self.uploads: set[str] = set()
        self.requests: list[Seen] = []
        self.token_requests: list[dict[str, str]] = []
        self._faults: list[_Armed] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler, self)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.scheme = "https" if tls else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def fail(self, method: str, path: str, fault: Fault, *, times: int = 1) -> None:
        """Arm a fault for the next requests whose method and path (a regular expression, searched) fit."""
        with self._lock:
            self._faults.append(_Armed(method, re.compile(path), fault, times))

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for armed in self._faults:
                if armed.times and armed.method == method and armed.path.search(path):
                    armed.times -= 1
                    return armed.fault
        return None

    def count(self, method: str, path: str) -> int:
        return sum(seen.method == method and re.search(path, seen.path) is not None for seen in self.requests)

    def put_blob(self, repository: str, data: bytes) -> str:
        self.blobs[repository, digest_of(data)] = data
        return digest_of(data)

    def put_manifest(self, repository: str, tag: str, manifest: Any, media_type: str) -> str:
        data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        self.manifests[repository, tag] = self.manifests[repository, digest_of(data)] = (media_type, data)
        return digest_of(data)

    def put_artifact(
        self,
        repository: str,
        tag: str,
        layers: list[tuple[str, bytes]],
        *,
        config: bytes = b"{}",
        config_type: str = "application/vnd.oci.empty.v1+json",
        media_type: str = "application/vnd.oci.image.manifest.v1+json",
        **more: Any,
    ) -> str:
        """A manifest with its blobs. Returns the manifest's digest."""

        def descriptor(kind: str, data: bytes) -> dict[str, Any]:
            return {"mediaType": kind, "digest": self.put_blob(repository, data), "size": len(data)}

        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": descriptor(config_type, config),
            "layers": [descriptor(kind, data) for kind, data in layers],
            **more,
        }
        return self.put_manifest(repository, tag, manifest, media_type)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], registry: FakeRegistry) -> None:
        self.registry = registry
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what these tests are made of."""


class _DroppedError(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server
    fault: Fault | None = None

    def log_message(self, *_: Any) -> None:
        pass

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the base class looks these up

    def _serve(self) -> None:
        registry = self.server.registry
        headers = {name.lower(): value for name, value in self.headers.items()}
        registry.requests.append(Seen(self.command, self.path, headers))
        self.fault = registry.take_fault(self.command, self.path)
        match self.fault:
            case Drop():
                self.close_connection = True
                return
            case Hold(until):
                until.wait(10)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match self.fault:
            case Status(code, more, text):
                self._answer(code, text, more)
            case Redirect(to, code):
                self._answer(code, b"", {"Location": to})
            case _:
                self._route(registry, body)

    def _route(self, registry: FakeRegistry, body: bytes) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/token":
            return self._token(registry, query, body)
        if url.path in {"/v2/", "/v2"}:
            return self._answer(200) if self._allowed(registry, "", "pull") else None
        found = re.fullmatch(r"(?:/\w+)?/v2/(.+)/(manifests|blobs|tags|referrers)/(.*)", url.path)
        if found is None:
            return self._answer(404)
        repository, kind, target = found.groups()
        access = "pull" if self.command in {"GET", "HEAD"} else "delete" if self.command == "DELETE" else "push"
        if not self._allowed(registry, repository, access):
            return None
        if kind == "blobs" and target.startswith("uploads/"):
            return self._upload(registry, repository, query, target, body)
        if kind == "manifests" and self.command == "PUT":
            media_type = self.headers.get("Content-Type", "")
            digest = registry.put_manifest(repository, target, body, media_type)
            return self._answer(201, b"", {"Docker-Content-Digest": digest})
        if kind == "manifests" and self.command == "DELETE":
            return self._answer(202 if registry.manifests.pop((repository, target), None) else 404)
        if kind == "tags":
            return self._tags(registry, repository, query)
        if kind == "referrers":
            return self._referrers(registry, repository, target)
        if kind == "manifests":
            media_type, data = registry.manifests.get((repository, target), ("", b""))
            if not media_type:
                return self._error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            return self._answer(200, data, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(data)})
        blob = registry.blobs.get((repository, target))
        return self._error(404, "BLOB_UNKNOWN", "blob unknown") if blob is None else self._blob(registry, blob)

    def _blob(self, registry: FakeRegistry, data: bytes) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if registry.ranges else None
        if wanted is None:
            return self._answer(200, data, {"Content-Type": "application/octet-stream"})
        start = int(wanted[1])
        content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._answer(206, data[start:], {"Content-Range": content_range})

    def _upload(self, registry: FakeRegistry, repository: str, query: dict[str, str], target: str, body: bytes) -> None:
        if self.command == "POST":
            source = registry.blobs.get((query.get("from", ""), query.get("mount", "")))
            if source is not None:
                registry.blobs[repository, query["mount"]] = source
                return self._answer(201, b"", {"Location": f"/v2/{repository}/blobs/{query['mount']}"})
            session = f"s{len(registry.requests)}"
            registry.uploads.add(session)
            return self._answer(202, b"", {"Location": f"/v2/{repository}/blobs/uploads/{session}?_state=x"})
        session = target.removeprefix("uploads/")
        if session not in registry.uploads:
            return self._error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
        if digest_of(body) != query.get("digest"):
            return self._error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        registry.uploads.discard(session)
        registry.put_blob(repository, body)
        return self._answer(201, b"", {"Docker-Content-Digest": digest_of(body)})

    def _tags(self, registry: FakeRegistry, repository: str, query: dict[str, str]) -> None:
        tags = sorted(name for repo, name in registry.manifests if repo == repository and ":" not in name)
        if not tags:
            return self._error(404, "NAME_UNKNOWN", "repository name not known to registry")
        rest = [tag for tag in tags if tag > query.get("last", "")]
        link = {}
        if len(rest) > registry.page:
            link = {"Link": f'</v2/{repository}/tags/list?last={rest[registry.page - 1]}>; rel="next"'}
        return self._answer(200, json.dumps({"name": repository, "tags": rest[: registry.page]}).encode(), link)

    def _referrers(self, registry: FakeRegistry, repository: str, digest: str) -> None:
        if not registry.referrers:
            return self._answer(404)
        found = []
        for (repo, name), (media_type, data) in registry.manifests.items():
            value = json.loads(data)
            if repo == repository and ":" in name and value.get("subject", {}).get("digest") == digest:
                kind = value.get("artifactType", "")
                found.append({"mediaType": media_type, "digest": name, "size": len(data), "artifactType": kind})
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": found}
        return self._answer(200, json.dumps(index).encode(), {"Content-Type": index["mediaType"]})

    def _allowed(self, registry: FakeRegistry, repository: str, access: str) -> bool:
        given = self.headers.get("Authorization", "")
        if registry.basic is not None:
            wanted = "Basic " + base64.b64encode(":".join(registry.basic).encode()).decode()
            if given == wanted:
                return True
            self._error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": 'Basic realm="fake"'})
            return False
        if not registry.bearer:
            return True
        scope = registry.tokens.get(given.removeprefix("Bearer "))
        if scope is not None and re.search(rf"repository:{re.escape(repository)}:\S*{access}", scope):
            return True
        actions = "pull" if access == "pull" else "pull,push"
        realm = registry.realm or f"{registry.url}/token"
        challenge = f'Bearer realm="{realm}",service="fake",scope="repository:{repository}:{actions}"'
        self._error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})
        return False

    def _token(self, registry: FakeRegistry, query: dict[str, str], body: bytes) -> None:
        form = query | {name: values[0] for name, values in parse_qs(body.decode()).items()}
        registry.token_requests.append(form)
        scope = form.get("scope", "")
        given = self.headers.get("Authorization", "")
        if form.get("grant_type") == "refresh_token":
            known = form.get("refresh_token") in registry.refresh_tokens
        elif given.startswith("Basic "):
            user, _, password = base64.b64decode(given[6:]).decode().partition(":")
            known = registry.users.get(user) == password
        else:
            known, scope = registry.anonymous_pull, scope.replace(",push", "")
        if not known:
            return self._error(401, "UNAUTHORIZED", "incorrect username or password")
        token = f"t{len(registry.tokens)}"
        registry.tokens[token] = scope
        return self._answer(200, json.dumps({"token": token, "expires_in": registry.expires_in}).encode())

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self._answer(status, body, headers)

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        if isinstance(self.fault, Corrupt) and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if isinstance(self.fault, Endless):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._endless(body)
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(self.fault, Truncate):
            self.wfile.write(body[: self.fault.after])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body)

    def _endless(self, body: bytes) -> None:
        self.close_connection = True
        piece = body
        try:
            while True:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                piece = b"\0" * 65536
        except OSError:
            return
