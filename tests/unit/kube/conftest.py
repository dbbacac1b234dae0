"""A fake API server, and a TLS server of a CA of our own that asks for client certificates."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cinderctl.pki import Subject, issue, new_private_key, self_signed_ca
from tests.unit.kube.fake_api import FakeApi


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi.running() as server:
        yield server


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("pki")
    start = datetime.now(UTC) - timedelta(hours=1)
    ca_key = new_private_key()
    ca = self_signed_ca(ca_key, "kubernetes", not_before=start, days=1)
    files = {"ca.crt": ca}
    for name, subject in {
        "server": Subject("kube-apiserver", ip_addresses=("127.0.0.1",)),
        "client": Subject("client", organizations=("system:masters",)),
    }.items():
        key = new_private_key()
        is_server = name == "server"
        files[f"{name}.key"] = key
        files[f"{name}.crt"] = issue(
            ca, ca_key, key, subject, server=is_server, client=not is_server, not_before=start, days=1
        )
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in files}


class _Peer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        subject: Any = self.connection.getpeercert()["subject"]  # type: ignore[attr-defined]
        names = [value for part in subject for key, value in part if key == "commonName"]
        body = json.dumps({"peer": names[0]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class _QuietServer(http.server.HTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A client that does not trust us hangs up in the handshake: that is the test."""


@pytest.fixture
def tls_server(tls_files: Mapping[str, Path]) -> Iterator[tuple[int, Mapping[str, Path]]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_files["server.crt"], tls_files["server.key"])
    context.load_verify_locations(tls_files["ca.crt"])
    context.verify_mode = ssl.CERT_REQUIRED
    with _QuietServer(("127.0.0.1", 0), _Peer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=True)
        thread = threading.Thread(target=lambda: server.serve_forever(0.01))
        thread.start()
        try:
            yield server.server_address[1], tls_files
        finally:
            server.shutdown()
            thread.join()
