"""Every format of a WebAssembly artifact is pulled, ours are pushed alike each time, all else says what it is."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cinderctl.host.files import StorageError
from cinderctl.oci.artifact import artifact_digest, inspect, pull_module, push_module
from cinderctl.oci.client import RegistryClient
from cinderctl.oci.errors import (
    DigestMismatchError,
    ManifestUnknownError,
    NotWasmError,
    OciError,
    RegistryProtocolError,
    TooLargeError,
)
from cinderctl.oci.formats import PushFormat
from cinderctl.oci.layer import extract, find_wasm, normalised
from cinderctl.oci.manifest import OCI_INDEX, OCI_MANIFEST
from cinderctl.oci.reference import Reference, parse_reference
from cinderctl.oci.wasm import Export, Import
from tests.fakes.registry import Corrupt, FakeRegistry, Truncate, digest_of
from tests.unit.oci.conftest import COMPONENT, MODULE

IMAGE = "application/vnd.oci.image.config.v1+json"
DOCKER_IMAGE = "application/vnd.docker.container.image.v1+json"
TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
TAR = "application/vnd.oci.image.layer.v1.tar"
DOCKER_TAR = "application/vnd.docker.image.rootfs.diff.tar.gzip"
KRUSTLET_LAYER = "application/vnd.wasm.content.layer.v1+wasm"
SPIN = "application/vnd.fermyon.spin.application.v1+config"


def reference(registry: FakeRegistry, tag: str = "v1") -> Reference:
    return parse_reference(f"{registry.host}/team/app:{tag}")


def tar(*members: tuple[str, bytes | None], packed: bool = True, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer; a member without content is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return gzip.compress(buffer.getvalue()) if packed else buffer.getvalue()


def image_config(entrypoint: list[str] | None = None, *, system: str = "wasi", architecture: str = "wasm") -> bytes:
    inner = {} if entrypoint is None else {"Entrypoint": entrypoint}
    return json.dumps({"os": system, "architecture": architecture, "config": inner}).encode()


# Push


def test_cncf_is_pushed_as_its_readers_expect(registry: FakeRegistry, client: RegistryClient) -> None:
    pushed = push_module(client, reference(registry), MODULE, title="dir/hello.wasm")
    media_type, data = registry.manifests["team/app", "v1"]
    manifest = json.loads(data)
    assert (media_type, manifest["mediaType"], manifest["schemaVersion"]) == (OCI_MANIFEST, OCI_MANIFEST, 2)
    assert manifest["config"]["mediaType"] == "application/vnd.wasm.config.v0+json"
    (layer,) = manifest["layers"]
    assert (layer["mediaType"], layer["digest"], layer["size"]) == ("application/wasm", digest_of(MODULE), len(MODULE))
    assert layer["annotations"] == {"org.opencontainers.image.title": "hello.wasm"}
    assert json.loads(registry.blobs["team/app", manifest["config"]["digest"]]) == {
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip1",
        "layerDigests": [digest_of(MODULE)],
    }
    assert (pushed.digest, pushed.size, pushed.kind) == (digest_of(data), len(data), "module")
    assert str(pushed.reference) == f"{registry.host}/team/app@{digest_of(data)}"


def test_a_components_world_is_in_its_config(registry: FakeRegistry, client: RegistryClient) -> None:
    push_module(client, reference(registry), COMPONENT)
    manifest = json.loads(registry.manifests["team/app", "v1"][1])
    config = json.loads(registry.blobs["team/app", manifest["config"]["digest"]])
    assert config["os"] == "wasip2"
    assert config["component"] == {"exports": ["run"], "imports": ["wasi:cli/environment@0.2.0", "f"]}


def test_wasm_to_oci_is_pushed_as_krustlet_reads_it(registry: FakeRegistry, client: RegistryClient) -> None:
    push_module(client, reference(registry), MODULE, format="wasm-to-oci", title="hello.wasm")
    manifest = json.loads(registry.manifests["team/app", "v1"][1])
    assert "mediaType" not in manifest  # Krustlet refuses OCI manifests that have one
    assert manifest["config"] == {
        "mediaType": "application/vnd.wasm.config.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
    }
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == KRUSTLET_LAYER
    assert layer["annotations"] == {"org.opencontainers.image.title": "hello.wasm"}


def test_docker_is_pushed_as_a_wasi_image(registry: FakeRegistry, client: RegistryClient) -> None:
    push_module(client, reference(registry), MODULE, format="docker", title="hello.wasm")
    manifest = json.loads(registry.manifests["team/app", "v1"][1])
    config = json.loads(registry.blobs["team/app", manifest["config"]["digest"]])
    layer = gzip.decompress(registry.blobs["team/app", manifest["layers"][0]["digest"]])
    assert (config["os"], config["architecture"]) == ("wasi", "wasm")
    assert config["config"]["Entrypoint"] == ["/hello.wasm"]
    assert config["rootfs"]["diff_ids"] == [digest_of(layer)]


FORMATS: list[PushFormat] = ["cncf", "wasm-to-oci", "docker"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("wasm", [MODULE, COMPONENT])
def test_what_is_pushed_is_pulled_and_always_has_the_same_digest(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path, form: PushFormat, wasm: bytes
) -> None:
    path = tmp_path / "hello.wasm"
    path.write_bytes(wasm)
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    digests = {
        push_module(client, reference(registry), path, format=form, created=moment).digest,
        push_module(client, reference(registry), wasm, format=form, title="hello.wasm", created=moment).digest,
        artifact_digest(path, format=form, created=moment),
    }
    (digest,) = digests
    pulled = pull_module(client, reference(registry), tmp_path / "out")
    assert pulled.path.read_bytes() == wasm
    assert (pulled.format, pulled.manifest_digest, pulled.module_digest) == (form, digest, digest_of(wasm))
    assert pulled.kind == ("module" if wasm is MODULE else "component")
    assert pulled.size == len(wasm)


def test_time_and_title_are_part_of_the_digest() -> None:
    digests = {
        artifact_digest(MODULE),
        artifact_digest(MODULE, title="other.wasm"),
        artifact_digest(MODULE, created=datetime(2026, 1, 1, tzinfo=UTC)),
        artifact_digest(COMPONENT),
    }
    assert len(digests) == 4


def test_what_is_no_module_is_refused_before_anything_is_sent(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    with pytest.raises(NotWasmError, match="ELF"):
        push_module(client, reference(registry), b"\x7fELF....")
    with pytest.raises(StorageError):
        push_module(client, reference(registry), tmp_path / "none.wasm")
    assert registry.requests == []


# Pull: the formats


def as_cncf(registry: FakeRegistry) -> None:
    registry.put_artifact(
        "team/app", "v1", [("application/wasm", MODULE)], config_type="application/vnd.wasm.config.v0+json"
    )


def as_krustlet(registry: FakeRegistry) -> None:
    registry.put_artifact(
        "team/app", "v1", [(KRUSTLET_LAYER, MODULE)], config_type="application/vnd.wasm.config.v1+json"
    )


def as_solo(registry: FakeRegistry) -> None:
    layer = "application/vnd.module.wasm.content.layer.v1+wasm"
    registry.put_artifact("team/app", "v1", [(layer, MODULE)], config_type="application/vnd.module.wasm.config.v1+json")


def as_gitlab(registry: FakeRegistry) -> None:
    config = "application/vnd.module.wasm.config.v1+json"
    registry.put_artifact("team/app", "v1", [(KRUSTLET_LAYER, MODULE)], config_type=config)


def as_runwasi(registry: FakeRegistry) -> None:
    layer = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"
    registry.put_artifact("team/app", "v1", [(layer, MODULE)], config=image_config(), config_type=IMAGE)


def as_spin(registry: FakeRegistry) -> None:
    layers = [(KRUSTLET_LAYER, MODULE), ("application/vnd.wasm.content.layer.v1+data", b"page"), (SPIN, b"{}")]
    registry.put_artifact("team/app", "v1", layers, config_type=SPIN)


def as_compat(registry: FakeRegistry) -> None:
    layer = tar(("plugin.wasm", MODULE), ("runtime-config.json", b"{}"))
    annotations = {"module.wasm.image/variant": "compat-smart"}
    config = image_config(system="linux", architecture="amd64")
    registry.put_artifact(
        "team/app", "v1", [(TAR_GZIP, layer)], config=config, config_type=IMAGE, annotations=annotations
    )


def as_compat_without_annotation(registry: FakeRegistry) -> None:
    config = image_config(system="linux", architecture="amd64")
    layer = tar(("plugin.wasm", MODULE))
    registry.put_artifact("team/app", "v1", [(DOCKER_TAR, layer)], config=config, config_type=DOCKER_IMAGE)


def as_docker(registry: FakeRegistry) -> None:
    layer = tar(("etc", None), ("etc/other.wasm", b"no"), ("./app/hello.wasm", MODULE))
    config = image_config(["/app/hello.wasm"])
    registry.put_artifact("team/app", "v1", [(TAR_GZIP, layer)], config=config, config_type=IMAGE)


def as_docker_in_layers(registry: FakeRegistry) -> None:
    """The upper layer's file wins; the entry is relative to the working directory; one layer is not compressed."""
    lower, upper = tar(("srv/hello.wasm", b"old")), tar(("srv/hello.wasm", MODULE), packed=False)
    inner = {"WorkingDir": "/srv", "Entrypoint": ["runner"], "Cmd": ["./hello.wasm", "arg"]}
    config = json.dumps({"os": "linux", "architecture": "amd64", "config": inner}).encode()
    layers = [(TAR_GZIP, lower), (TAR, upper), (TAR_GZIP, tar(("etc/x", b"")))]
    registry.put_artifact("team/app", "v1", layers, config=config, config_type=IMAGE)


def as_unknown_vendor(registry: FakeRegistry) -> None:
    registry.put_artifact("team/app", "v1", [("application/vnd.acme.module+wasm", MODULE)])


@pytest.mark.parametrize(
    ("put", "form"),
    [
        (as_cncf, "cncf"),
        (as_krustlet, "wasm-to-oci"),
        (as_solo, "solo"),
        (as_gitlab, "solo"),
        (as_runwasi, "runwasi"),
        (as_spin, "spin"),
        (as_compat, "compat"),
        (as_compat_without_annotation, "docker"),
        (as_docker, "docker"),
        (as_docker_in_layers, "docker"),
        (as_unknown_vendor, "bare"),
    ],
)
def test_every_format_is_pulled(
    registry: FakeRegistry,
    client: RegistryClient,
    tmp_path: Path,
    put: Callable[[FakeRegistry], None],
    form: str,
) -> None:
    put(registry)
    pulled = pull_module(client, reference(registry), tmp_path / "out.wasm")
    assert pulled.path.read_bytes() == MODULE
    assert (pulled.format, pulled.kind, pulled.size) == (form, "module", len(MODULE))
    assert pulled.module_digest == digest_of(MODULE)
    assert pulled.manifest_digest == client.resolve(reference(registry)).digest
    assert [path.name for path in tmp_path.iterdir()] == ["out.wasm"]


def index(registry: FakeRegistry, *platforms: tuple[str, bytes] | None) -> str:
    entries = []
    for number, platform in enumerate(platforms):
        name, content = platform or ("", MODULE)
        digest = registry.put_artifact("team/app", f"p{number}", [("application/wasm", content)])
        system, _, architecture = name.partition("/")
        entry: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}
        entries.append(entry | ({"platform": {"os": system, "architecture": architecture}} if name else {}))
    return registry.put_manifest("team/app", "v1", {"schemaVersion": 2, "manifests": entries}, OCI_INDEX)


@pytest.mark.parametrize(
    "platforms",
    [
        [("linux/amd64", b"no"), ("wasi/wasm", MODULE)],
        [("wasi/wasm", b"no"), ("wasip1/wasm", MODULE)],
        [("wasip2/wasm", b"no"), ("wasip1/wasm", MODULE)],
        [("linux/amd64", b"no"), ("wasip2/wasm", MODULE)],
        [("linux/arm64", b"no"), ("wasi/wasm32", MODULE)],
        [None],
    ],
)
def test_of_an_index_the_wasm_manifest_is_taken(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path, platforms: list[tuple[str, bytes] | None]
) -> None:
    digest = index(registry, *platforms)
    pulled = pull_module(client, reference(registry), tmp_path / "out")
    assert pulled.path.read_bytes() == MODULE
    assert pulled.manifest_digest == digest  # what the tag stands for, so that a later look compares


def test_an_index_without_wasm_names_what_it_has(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    index(registry, ("linux/arm64", b""), ("linux/amd64", b""), ("unknown/unknown", b""))
    words = "is a container image for linux/amd64, linux/arm64, unknown/unknown; wasm nodes run WebAssembly modules"
    with pytest.raises(NotWasmError, match=words):
        pull_module(client, reference(registry), tmp_path / "out")


def test_indexes_in_indexes_end(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    digest = index(registry, None)
    for depth in range(4):
        inner = {"mediaType": OCI_INDEX, "digest": digest, "size": 1}
        digest = registry.put_manifest("team/app", "v1", {"manifests": [inner], "depth": depth}, OCI_INDEX)
    with pytest.raises(RegistryProtocolError, match="without end"):
        pull_module(client, reference(registry), tmp_path / "out")


# Pull: refusals


def refused(registry: FakeRegistry, client: RegistryClient, tmp_path: Path, **bounds: int) -> OciError:
    with pytest.raises(OciError) as caught:
        pull_module(client, reference(registry), tmp_path / "out", **bounds)
    assert list(tmp_path.iterdir()) == []
    return caught.value


def test_a_linux_image_is_named_without_reading_its_layers(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    config = image_config(["/bin/sh"], system="linux", architecture="amd64")
    registry.put_artifact("team/app", "v1", [(TAR_GZIP, b"big")], config=config, config_type=IMAGE)
    error = refused(registry, client, tmp_path)
    assert isinstance(error, NotWasmError)
    assert "is a container image for linux/amd64; wasm nodes run WebAssembly modules" in str(error)
    assert registry.count("GET", digest_of(b"big")) == 0


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (([(TAR_GZIP, tar(("a.wasm", MODULE)))], ["/b.wasm"]), "`b.wasm`, which is in none of its layers"),
        (([(TAR_GZIP, tar(("a.wasm", MODULE), ("b.wasm", MODULE)))], None), "2 modules (a.wasm, b.wasm)"),
        (([(TAR_GZIP, tar(("readme", b"")))], None), "no *.wasm"),
        (([("application/vnd.oci.image.layer.v1.tar+zstd", b"x")], ["/a.wasm"]), "tar+zstd"),
    ],
)
def test_an_image_without_its_module_says_why(
    registry: FakeRegistry,
    client: RegistryClient,
    tmp_path: Path,
    image: tuple[list[tuple[str, bytes]], list[str] | None],
    words: str,
) -> None:
    layers, entrypoint = image
    registry.put_artifact("team/app", "v1", layers, config=image_config(entrypoint), config_type=IMAGE)
    error = refused(registry, client, tmp_path)
    assert "container image for wasi/wasm" in str(error)
    assert words in error.diagnostics[0].detail


def test_another_kind_of_artifact_is_named(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    chart = "application/vnd.cncf.helm.config.v1+json"
    registry.put_artifact("team/app", "v1", [("application/x-tar", b"chart")], config_type=chart)
    assert chart in str(refused(registry, client, tmp_path))


def test_a_spin_application_of_several_components_is_not_guessed_at(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    registry.put_artifact("team/app", "v1", [(KRUSTLET_LAYER, MODULE), (KRUSTLET_LAYER, COMPONENT)], config_type=SPIN)
    assert "Spin application of 2 components" in str(refused(registry, client, tmp_path))


@pytest.mark.parametrize(
    ("content", "words"), [(b"\x7fELF....", "ELF"), (b"", "an empty file"), (b"\0asm\x02\0\0\0", "unknown version")]
)
def test_a_layer_that_claims_to_be_wasm_is_looked_at(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path, content: bytes, words: str
) -> None:
    registry.put_artifact("team/app", "v1", [("application/wasm", content)])
    assert words in str(refused(registry, client, tmp_path))


def test_a_module_over_the_bound_is_not_fetched(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    registry.put_artifact("team/app", "v1", [("application/wasm", MODULE)])
    error = refused(registry, client, tmp_path, max_bytes=len(MODULE) - 1)
    assert isinstance(error, TooLargeError)
    assert registry.count("GET", "/blobs/") == 0


def test_a_module_that_unpacks_past_the_bound_is_stopped(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    layer = tar(("big.wasm", MODULE + b"\0" * 40_000_000))
    registry.put_artifact("team/app", "v1", [(TAR_GZIP, layer)], config=image_config(), config_type=IMAGE)
    error = refused(registry, client, tmp_path, max_bytes=1_000_000)
    assert isinstance(error, TooLargeError)
    assert "unpacks to more than 4000000 bytes" in str(error)
    named = image_config(["big.wasm"])
    registry.put_artifact("team/app", "v1", [(TAR_GZIP, layer)], config=named, config_type=IMAGE)
    assert "the module" in str(refused(registry, client, tmp_path, max_bytes=1_000_000))


def test_a_tampered_or_truncated_module_is_refused(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    registry.put_artifact("team/app", "v1", [("application/wasm", MODULE)])
    registry.fail("GET", "/blobs/", Corrupt(), times=9)
    assert isinstance(refused(registry, client, tmp_path), DigestMismatchError)
    with FakeRegistry() as other:
        other.put_artifact("team/app", "v1", [("application/wasm", MODULE)])
        other.blobs["team/app", digest_of(MODULE)] = MODULE[:-4]
        assert isinstance(refused(other, client, tmp_path), DigestMismatchError)
        other.blobs["team/app", digest_of(MODULE)] = MODULE
        other.fail("GET", "/blobs/", Truncate(5))
        assert pull_module(client, reference(other), tmp_path / "out").size == len(MODULE)


def test_what_is_not_there_is_unknown(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    assert isinstance(refused(registry, client, tmp_path), ManifestUnknownError)


def test_a_config_that_is_no_json_is_named(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    registry.put_artifact("team/app", "v1", [], config=b"{", config_type=IMAGE)
    assert isinstance(refused(registry, client, tmp_path), RegistryProtocolError)


# Inspect


def test_inspect_says_what_it_is_and_needs(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    as_krustlet(registry)
    found = inspect(client, reference(registry), directory=tmp_path)
    assert (found.format, found.kind, found.size) == ("wasm-to-oci", "module", len(MODULE))
    assert found.layers == (KRUSTLET_LAYER,)
    assert found.config_media_type == "application/vnd.wasm.config.v1+json"
    assert found.imports == (Import("env", "log", "func"),)
    assert found.exports == (Export("_start", "func"),)
    assert found.digest == client.resolve(reference(registry)).digest
    assert list(tmp_path.iterdir()) == []


# Layers


def test_names_in_a_layer_are_only_compared() -> None:
    layer = io.BytesIO(tar(("../../etc/passwd.wasm", MODULE), ("/abs.wasm", b"a"), ("./rel.wasm", b"r")))
    assert [found.name for found in find_wasm(layer, 10**6, "x")] == ["etc/passwd.wasm", "abs.wasm", "rel.wasm"]
    assert normalised("/a/../../b.wasm") == "b.wasm"


def test_links_and_devices_are_no_modules() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("a.wasm")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    taken: list[bytes] = []
    assert extract(buffer, "a.wasm", 10**6, "x", taken.append) is False
    assert find_wasm(buffer, 10**6, "x") == []
    assert taken == []


def test_a_header_of_a_gigabyte_is_not_read() -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    bomb = gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + b"\0" * (8 << 20))
    with pytest.raises(NotWasmError, match="tar"):
        find_wasm(io.BytesIO(bomb), 1 << 31, "x")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_dialect_is_read(form: int) -> None:
    name = "d" * 90 + "/hello.wasm"
    taken: list[bytes] = []
    assert extract(io.BytesIO(tar((name, MODULE), form=form)), name, 10**6, "x", taken.append)
    assert b"".join(taken) == MODULE


GOOD = tar(("a/b.wasm", MODULE * 20), ("c", b"c" * 700), packed=False)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=8), st.booleans())
def test_a_damaged_layer_is_read_or_refused(flips: list[tuple[int, int]], packed: bool) -> None:
    damaged = bytearray(GOOD)
    for at, value in flips:
        damaged[at] = value
    layer = io.BytesIO(gzip.compress(bytes(damaged)) if packed else bytes(damaged))
    try:
        for found in find_wasm(layer, 1 << 20, "x"):
            extract(layer, found.name, 1 << 20, "x", lambda piece: None)
    except (NotWasmError, TooLargeError):
        return


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_gzip_stream_is_read_or_refused(at: int, value: int) -> None:
    damaged = bytearray(gzip.compress(GOOD, mtime=0))
    damaged[at % len(damaged)] = value
    try:
        find_wasm(io.BytesIO(damaged), 1 << 20, "x")
    except (NotWasmError, TooLargeError):
        return
