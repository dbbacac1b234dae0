"""Our client and CNCF Distribution understand each other: every format, large blobs, and what each refuses."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cinderctl.binaries.catalog import KUBERNETES_VERSION
from cinderctl.binaries.locate import find
from cinderctl.binaries.sources import Sources
from cinderctl.core.values import Secret
from cinderctl.host.dirs import Home
from cinderctl.oci.artifact import artifact_digest, inspect, pull_module, push_module
from cinderctl.oci.auth import single_login
from cinderctl.oci.client import RegistryClient
from cinderctl.oci.errors import DigestMismatchError, ManifestUnknownError, RegistryRefusedError, UnauthorizedError
from cinderctl.oci.formats import PushFormat
from cinderctl.oci.hosts import Endpoint, Hosts
from cinderctl.oci.manifest import OCI_MANIFEST
from cinderctl.oci.reference import Reference, parse_reference
from tests.unit.oci.conftest import COMPONENT, MODULE

# bcrypt of `secret`, as `htpasswd -B` writes it
HTPASSWD = "user:$2b$04$5jMTbWBx/wdZL1QvJQHTeOFluPwyTx1OoKuXnEPBIhUPrsn2EYCsy\n"


@dataclass(frozen=True)
class Distribution:
    host: str
    data: Path

    def reference(self, name: str = "team/app:v1") -> Reference:
        return parse_reference(f"{self.host}/{name}")

    def blob(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self.data / "docker/registry/v2/blobs" / algorithm / encoded[:2] / encoded / "data"


Start = Callable[..., Distribution]


@pytest.fixture(scope="module")
def binary() -> Path:
    found = find(["registry"], Sources(Home.from_env(os.environ).cache), kubernetes_version=KUBERNETES_VERSION)
    if "registry" not in found:
        pytest.skip("the registry's binary is not in the cache: run `cinderctl binaries fetch`")
    return found["registry"]


@pytest.fixture
def start(binary: Path, tmp_path: Path) -> Iterator[Start]:
    """Start registries on loopback, in directories of the test's own."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(**more: object) -> Distribution:
        root = tmp_path / f"registry{len(running)}"
        root.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{probe.getsockname()[1]}"
        config = {
            "version": "0.1",
            "log": {"accesslog": {"disabled": True}, "level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(root / "data")}, "delete": {"enabled": True}},
            "http": {"addr": host, "secret": "x" * 32},
            **more,
        }
        (root / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        with (root / "log").open("wb") as log:
            process = subprocess.Popen([binary, "serve", root / "config.yml"], stdout=log, stderr=log, env={})
        running.append(process)
        deadline = time.monotonic() + 10
        while not _answers(host):
            assert process.poll() is None, (root / "log").read_text()
            assert time.monotonic() < deadline, "the registry does not come up"
            time.sleep(0.02)
        return Distribution(host, root / "data")

    yield begin
    for process in running:
        process.terminate()
        process.wait(10)


def _answers(host: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}/v2/", timeout=1):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False


FORMATS: list[PushFormat] = ["cncf", "wasm-to-oci", "docker"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("wasm", [MODULE, COMPONENT])
def test_what_is_pushed_is_pulled(start: Start, tmp_path: Path, form: PushFormat, wasm: bytes) -> None:
    registry, source = start(), tmp_path / "hello.wasm"
    source.write_bytes(wasm)
    with RegistryClient() as client:
        ref = registry.reference()
        with pytest.raises(ManifestUnknownError):
            client.resolve(ref)
        pushed = push_module(client, ref, source, format=form)
        assert pushed.digest == artifact_digest(source, format=form)
        assert push_module(client, ref, source, format=form) == pushed
        found = client.resolve(ref)
        assert (found.digest, found.size, found.media_type) == (pushed.digest, pushed.size, OCI_MANIFEST)
        pulled = pull_module(client, ref, tmp_path / "out.wasm")
        assert pulled.path.read_bytes() == wasm
        assert (pulled.format, pulled.manifest_digest) == (form, pushed.digest)
        assert inspect(client, ref, directory=tmp_path).kind == pushed.kind
        assert client.tags(ref) == ["v1"]
        assert client.delete_manifest(pushed.reference)
        with pytest.raises(ManifestUnknownError):
            client.manifest(pushed.reference)


def test_large_blobs_stream_both_ways_and_are_mounted(start: Start, tmp_path: Path) -> None:
    registry, source = start(), tmp_path / "large"
    with source.open("wb") as file:
        for _ in range(32):
            file.write(os.urandom(1 << 20))
    with RegistryClient() as client:
        blob = client.push_blob(registry.reference(), source)
        other = registry.reference("other/app:v1")
        assert not client.has_blob(other, blob.digest)
        client.push_blob(other, source, mount_from="team/app")
        assert client.has_blob(other, blob.digest)
        client.blob_to(other, blob, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_a_blob_damaged_on_the_registrys_disk_is_refused(start: Start, tmp_path: Path) -> None:
    registry = start()
    with RegistryClient() as client:
        pushed = push_module(client, registry.reference(), MODULE)
        registry.blob(pushed.module_digest).write_bytes(MODULE[:-1] + b"x")
        with pytest.raises(DigestMismatchError):
            pull_module(client, registry.reference(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_alias_is_served_through_its_mirror(start: Start, tmp_path: Path) -> None:
    registry = start()
    hosts = Hosts({"cinderegg:5000": (Endpoint(f"http://{registry.host}"),)}, frozenset({"cinderegg:5000"}))
    with RegistryClient(hosts) as client:
        push_module(client, registry.reference("hello-world:v1"), MODULE)
        pulled = pull_module(client, parse_reference("cinderegg:5000/hello-world:v1"), tmp_path / "out")
    assert pulled.path.read_bytes() == MODULE


def test_a_manifest_whose_blobs_are_missing_is_refused_in_the_registrys_words(start: Start) -> None:
    registry, empty = start(), {"mediaType": "application/json", "digest": f"sha256:{'0' * 64}", "size": 2}
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": []}).encode()
    with RegistryClient() as client, pytest.raises(RegistryRefusedError, match="400") as caught:
        client.push_manifest(registry.reference(), data, OCI_MANIFEST)
    assert "MANIFEST_BLOB_UNKNOWN" in caught.value.diagnostics[0].detail


def test_basic_access_to_a_registry_with_users(start: Start, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    registry = start(auth={"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}})
    with RegistryClient() as client, pytest.raises(UnauthorizedError):
        push_module(client, registry.reference(), MODULE)
    with RegistryClient(credentials=single_login(registry.host, "user", Secret("secret"))) as client:
        push_module(client, registry.reference(), MODULE)
        assert pull_module(client, registry.reference(), tmp_path / "out").size == len(MODULE)
