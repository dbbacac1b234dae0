"""A release server on loopback with the layouts of the official downloads, whose files can be made to go wrong."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cinderctl.binaries.catalog import PROJECTS, Target
from cinderctl.binaries.ensure import ensure
from cinderctl.binaries.sources import Sources

VERSION = "v1.36.3"
ETCD = PROJECTS["etcd"].version
REGISTRY = PROJECTS["registry"].version


@dataclass
class Release:
    """What the server holds: path → body. `breaks` lists, per path, after how many bytes the next answers end (`cut`)
    or go silent (`stall`); `ranges` says whether a continuation is honoured."""

    files: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    ranges: bool = True
    url: str = ""
    gate: Callable[[str], None] = lambda path: None
    over: threading.Event = field(default_factory=threading.Event)

    def kubernetes(self, name: str, content: bytes, version: str = VERSION, *, algorithm: str = "sha256") -> str:
        path = f"/{version}/bin/linux/amd64/{name}"
        self.files[path] = content
        self.files[f"{path}.{algorithm}"] = hashlib.new(algorithm, content).hexdigest().encode()
        return path

    def archive(self, path: str, member: str, content: bytes) -> bytes:
        """A tar.gz with the member between others."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, data in (("README.md", b"words"), (member, content), ("other", b"no")):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        self.files[path] = buffer.getvalue()
        return buffer.getvalue()

    def etcd(self, content: bytes) -> str:
        file = f"etcd-{ETCD}-linux-amd64.tar.gz"
        path = f"/{ETCD}/{file}"
        body = self.archive(path, f"etcd-{ETCD}-linux-amd64/etcd", content)
        other = "0" * 64
        digest = hashlib.sha256(body).hexdigest()
        self.files[f"/{ETCD}/SHA256SUMS"] = f"{other}  etcd-{ETCD}-linux-arm64.tar.gz\n{digest}  {file}\n".encode()
        return path

    def registry(self, content: bytes) -> str:
        path = f"/{REGISTRY}/registry_{REGISTRY.removeprefix('v')}_linux_amd64.tar.gz"
        body = self.archive(path, "registry", content)
        self.files[f"{path}.sha256"] = hashlib.sha256(body).hexdigest().encode() + b"\n"
        return path

    def fetched(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    release: Release

    def do_GET(self) -> None:
        release = self.release
        path = "/" + self.path.split("/", 3)[3] if self.path.startswith("http://") else self.path
        asked = self.headers.get("Range", "")
        release.requests.append((path, asked))
        release.hosts.append(self.headers.get("Host", ""))
        release.gate(path)
        if path in release.redirects:
            self.send_response(302)
            self.send_header("Location", release.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = release.files.get(path)
        if body is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and release.ranges else 0
        if start >= len(body) > 0:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        body = body[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        kind, after = release.breaks[path].pop(0) if release.breaks.get(path) else ("", len(body))
        self.wfile.write(body[:after])
        self.wfile.flush()
        if kind == "stall":
            release.over.wait(30)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class calls it so
        pass


@pytest.fixture
def release() -> Iterator[Release]:
    release = Release()
    handler = type("Handler", (_Handler,), {"release": release})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    release.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield release
    finally:
        release.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def sources(tmp_path: Path, release: Release) -> Sources:
    """Downloads only, from the server."""
    return Sources(
        tmp_path / "cache",
        base_urls=dict.fromkeys(PROJECTS, release.url),
        allow_build=False,
        target=Target("linux", "amd64"),
        connect_timeout=2.0,
        stall_timeout=0.3,
    )


@dataclass
class Told:
    """Collects progress."""

    lines: list[tuple[str, int | None, int | None]] = field(default_factory=list)

    def __call__(self, message: str, done: int | None, total: int | None) -> None:
        self.lines.append((message, done, total))

    @property
    def messages(self) -> list[str]:
        return [message for message, _, _ in self.lines]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def get(sources: Sources, told: Told) -> Callable[..., dict[str, Path]]:
    """`ensure` with the version, the sources and the collected progress filled in."""

    def call(*names: str, sources: Sources = sources, version: str = VERSION, **more: Any) -> dict[str, Path]:
        return ensure(names, sources, kubernetes_version=version, **{"progress": told, **more})

    return call


def program(path: Path, says: str, code: int = 0) -> Path:
    """A small program that says something and ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    path.chmod(0o755)
    return path
