"""Content arrives whole and right or not at all; faults that pass are outlasted, the others are told apart."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cinderctl.host.files import StorageError
from cinderctl.oci.client import RegistryClient
from cinderctl.oci.errors import (
    BlobUnknownError,
    DigestMismatchError,
    ManifestUnknownError,
    OciError,
    RateLimitedError,
    RegistryProtocolError,
    RegistryRefusedError,
    RegistryUnreachableError,
    TooLargeError,
    TruncatedError,
    UnauthorizedError,
)
from cinderctl.oci.hosts import Endpoint, Hosts
from cinderctl.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, parse_manifest
from cinderctl.oci.proxy import Proxies
from cinderctl.oci.reference import Reference, parse_reference
from tests.fakes.registry import Corrupt, Drop, Endless, FakeRegistry, Hold, Redirect, Status, Truncate, digest_of
from tests.unit.oci.conftest import ClientFactory

BLOB = bytes(range(256)) * 4000  # about a megabyte, several chunks


def descriptor(data: bytes, **changed: object) -> Descriptor:
    fields: dict[str, object] = {"media_type": "application/wasm", "digest": digest_of(data), "size": len(data)}
    return Descriptor(**{**fields, **changed})  # type: ignore[arg-type]


def reference(registry: FakeRegistry, name: str = "team/app:v1") -> Reference:
    return parse_reference(f"{registry.host}/{name}")


def stored(registry: FakeRegistry, data: bytes = BLOB) -> Descriptor:
    registry.put_blob("team/app", data)
    return descriptor(data)


def test_a_blob_arrives_whole_and_private(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    dest = tmp_path / "blob"
    client.blob_to(reference(registry), stored(registry), dest, lambda done, total: seen.append((done, total)))
    assert dest.read_bytes() == BLOB
    assert dest.stat().st_mode & 0o777 == 0o600
    assert seen[-1] == (len(BLOB), len(BLOB))
    assert len(seen) > 2


def test_an_empty_blob_is_a_blob(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    assert client.blob_to(reference(registry), stored(registry, b""), tmp_path / "blob").read_bytes() == b""


def test_a_broken_body_is_taken_up_where_it_broke(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    registry.fail("GET", "/blobs/", Truncate(300_000))
    registry.fail("GET", "/blobs/", Truncate(500_000))
    client.blob_to(reference(registry), stored(registry), tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert [seen.headers.get("range") for seen in registry.requests] == [
        None,
        f"bytes=300000-{len(BLOB) - 1}",
        f"bytes=800000-{len(BLOB) - 1}",
    ]


def test_a_registry_without_ranges_is_asked_from_the_start(client: RegistryClient, tmp_path: Path) -> None:
    with FakeRegistry(ranges=False) as registry:
        registry.fail("GET", "/blobs/", Truncate(300_000))
        client.blob_to(reference(registry), stored(registry), tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB


def test_a_body_that_always_ends_early_is_given_up_and_leaves_nothing(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path, left_behind: Callable[[], list[str]]
) -> None:
    registry.fail("GET", "/blobs/", Truncate(0), times=99)
    with pytest.raises(TruncatedError, match="0 of 1024000 bytes"):
        client.blob_to(reference(registry), stored(registry), tmp_path / "blob")
    assert registry.count("GET", "/blobs/") == 5
    assert left_behind() == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Corrupt(), DigestMismatchError),
        (Endless(), TooLargeError),
        (Status(404), BlobUnknownError),
        (Status(403), UnauthorizedError),
        (Status(418), RegistryRefusedError),
        (Status(200, body=BLOB[:-1]), DigestMismatchError),
        (Status(206, {"Content-Range": "bytes 7-8/9"}, b"xx"), RegistryProtocolError),
        (Redirect("gopher://x/"), RegistryProtocolError),
    ],
)
def test_what_is_not_the_blob_is_never_kept(
    registry: FakeRegistry,
    client: RegistryClient,
    tmp_path: Path,
    fault: Corrupt | Endless | Status | Redirect,
    error: type[OciError],
) -> None:
    registry.fail("GET", "/blobs/", fault, times=9)
    (tmp_path / "blob").write_bytes(b"old")
    with pytest.raises(error):
        client.blob_to(reference(registry), stored(registry), tmp_path / "blob")
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]
    assert (tmp_path / "blob").read_bytes() == b"old"


def test_a_descriptor_that_lies_about_the_size_is_found(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    stored(registry)
    for size in (len(BLOB) - 1, len(BLOB) + 1):
        with pytest.raises(DigestMismatchError, match="bytes"):
            client.blob_to(reference(registry), descriptor(BLOB, size=size), tmp_path / "blob")


def test_a_blob_by_sha512_is_checked_too(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    digest = f"sha512:{hashlib.sha512(BLOB).hexdigest()}"
    registry.blobs["team/app", digest] = BLOB
    client.blob_to(reference(registry), descriptor(BLOB, digest=digest), tmp_path / "blob")
    registry.blobs["team/app", digest] = BLOB[:-1] + b"x"
    with pytest.raises(DigestMismatchError):
        client.blob_to(reference(registry), descriptor(BLOB, digest=digest), tmp_path / "other")


def test_a_place_that_cannot_be_written_is_an_error_of_the_disk(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="No such file"):
        client.blob_to(reference(registry), stored(registry), tmp_path / "none" / "blob")


def test_the_caller_can_end_a_pull(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path, left_behind: Callable[[], list[str]]
) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.blob_to(reference(registry), stored(registry), tmp_path / "blob", stop)
    assert left_behind() == []


def test_a_small_blob_in_memory_is_bounded(registry: FakeRegistry, client: RegistryClient) -> None:
    assert client.blob_bytes(reference(registry), stored(registry, b"{}")) == b"{}"
    with pytest.raises(TooLargeError):
        client.blob_bytes(reference(registry), stored(registry), 1000)


@pytest.mark.parametrize("fault", [Status(500), Status(503), Drop(), Status(429)])
def test_faults_that_pass_are_outlasted(
    registry: FakeRegistry, client: RegistryClient, pauses: list[float], fault: Status | Drop
) -> None:
    digest = registry.put_artifact("team/app", "v1", [])
    registry.fail("GET", "/manifests/", fault, times=3)
    assert client.manifest(reference(registry)).digest == digest
    assert len(pauses) == 3
    assert all(pause <= 0.8 for pause in pauses)


def test_retries_are_bounded_and_the_registrys_words_are_passed_on(
    registry: FakeRegistry, client: RegistryClient, pauses: list[float]
) -> None:
    words = json.dumps({"errors": [{"code": "UNKNOWN", "message": "the disk is on fire"}]}).encode()
    registry.fail("GET", "/manifests/", Status(500, body=words), times=99)
    with pytest.raises(RegistryUnreachableError, match="answered 500") as caught:
        client.manifest(reference(registry))
    assert caught.value.diagnostics[0].detail == "UNKNOWN: the disk is on fire"
    assert len(pauses) == 4


def test_the_registrys_own_waiting_time_is_kept(
    registry: FakeRegistry, client: RegistryClient, pauses: list[float]
) -> None:
    registry.put_artifact("team/app", "v1", [])
    registry.fail("GET", "/manifests/", Status(429, {"Retry-After": "7"}))
    client.manifest(reference(registry))
    assert 7 <= pauses[0] <= 7.2


def test_a_registry_that_asks_for_an_hour_is_not_waited_for(
    registry: FakeRegistry, client: RegistryClient, pauses: list[float]
) -> None:
    registry.fail("GET", "/manifests/", Status(429, {"Retry-After": "3600"}))
    with pytest.raises(RateLimitedError) as caught:
        client.manifest(reference(registry))
    assert caught.value.retry_after == 3600
    assert pauses == []


def test_a_registry_that_falls_silent_is_an_error_and_not_a_hang(
    registry: FakeRegistry, client_for: ClientFactory
) -> None:
    silence = threading.Event()
    registry.fail("GET", "/manifests/", Hold(silence), times=9)
    try:
        with pytest.raises(RegistryUnreachableError, match="stopped answering"):
            _hasty(client_for).manifest(reference(registry))
    finally:
        silence.set()


def _hasty(client_for: ClientFactory) -> RegistryClient:
    return client_for(attempts=1, read_timeout=0.05)


def test_nobody_at_home_and_no_such_name(client: RegistryClient) -> None:
    with pytest.raises(RegistryUnreachableError, match="Connection refused"):
        client.manifest(parse_reference("127.0.0.1:1/a"))
    with pytest.raises(RegistryUnreachableError, match="does not resolve"):
        client.manifest(parse_reference("nothing.invalid/a"))


def test_a_manifest_is_checked_against_the_reference_and_the_header(
    registry: FakeRegistry, client: RegistryClient
) -> None:
    digest = registry.put_artifact("team/app", "v1", [("application/wasm", BLOB)])
    ref = reference(registry)
    found = client.manifest(ref)
    assert (found.digest, found.media_type) == (digest, OCI_MANIFEST)
    assert client.manifest(ref.at(digest)).data == found.data
    registry.fail("GET", "/manifests/", Corrupt())
    with pytest.raises(DigestMismatchError):  # the header gives it away
        client.manifest(ref)
    registry.manifests["team/app", digest] = (OCI_MANIFEST, b'{"other": true}')
    with pytest.raises(DigestMismatchError):  # the header agrees with the wrong body, the reference does not
        client.manifest(ref.at(digest))


def test_resolving_asks_for_the_head_alone(registry: FakeRegistry, client: RegistryClient) -> None:
    digest = registry.put_artifact("team/app", "v1", [])
    found = client.resolve(reference(registry))
    assert found == Descriptor(OCI_MANIFEST, digest, len(registry.manifests["team/app", "v1"][1]))
    assert [seen.method for seen in registry.requests] == ["HEAD"]


@pytest.mark.parametrize("fault", [Status(405), Status(200), Status(200, {"Docker-Content-Digest": "sha256:x"})])
def test_a_registry_weak_in_head_is_asked_for_the_whole(
    registry: FakeRegistry, client: RegistryClient, fault: Status
) -> None:
    digest = registry.put_artifact("team/app", "v1", [])
    registry.fail("HEAD", "/manifests/", fault)
    assert client.resolve(reference(registry)).digest == digest


def test_what_is_not_there_is_unknown(registry: FakeRegistry, client: RegistryClient) -> None:
    for ask in (client.manifest, client.resolve, client.tags):
        with pytest.raises(ManifestUnknownError, match="team/app"):
            ask(reference(registry))


def test_an_oversized_manifest_is_not_read(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.put_manifest("team/app", "v1", b" " * (4 * 1024 * 1024 + 1), OCI_MANIFEST)
    with pytest.raises(TooLargeError):
        client.manifest(reference(registry))


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (b"{", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"[]", "no object"),
        ({"schemaVersion": 1}, "schema 1"),
        ({}, "no config"),
        ({"config": {}, "layers": []}, "config.digest"),
        ({"config": {"digest": digest_of(b"")}, "layers": []}, "config.size"),
        ({"config": {"digest": digest_of(b""), "size": -1}, "layers": []}, "config.size"),
        ({"config": {"digest": digest_of(b""), "size": 0}, "layers": {}}, "layers"),
        ({"config": {"digest": digest_of(b""), "size": 0}, "layers": [{"digest": "sha256:../../x"}]}, "layers[0]"),
        ({"config": {"digest": digest_of(b""), "size": 0}, "layers": [], "annotations": {"a": 1}}, "annotations"),
        ({"mediaType": OCI_INDEX, "manifests": 1}, "manifests"),
        ({"mediaType": 5, "config": {}}, "mediaType"),
        ({"manifests": [{"digest": digest_of(b""), "size": 1}] * 5000}, "5000 entries"),
    ],
)
def test_a_manifest_that_cannot_be_used_names_its_field(value: object, word: str) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(RegistryProtocolError) as caught:
        parse_manifest(data, OCI_MANIFEST, "r.io/a:v1")
    assert word in str(caught.value)


def test_a_manifest_without_a_type_of_its_own_has_the_headers() -> None:
    data = json.dumps({"config": {"digest": digest_of(b""), "size": 0}, "layers": []}).encode()
    found = parse_manifest(data, "application/vnd.docker.distribution.manifest.v2+json", "x")
    assert isinstance(found, Manifest)
    assert found.media_type.startswith("application/vnd.docker")


def test_tags_come_page_by_page(client: RegistryClient) -> None:
    with FakeRegistry(page=2) as registry:
        for number in range(5):
            registry.put_artifact("team/app", f"v{number}", [])
        assert client.tags(reference(registry)) == ["v0", "v1", "v2", "v3", "v4"]


def test_pages_that_lead_elsewhere_or_nowhere_end(registry: FakeRegistry, client: RegistryClient) -> None:
    body = b'{"tags": ["a"]}'
    registry.fail("GET", "/tags/", Status(200, {"Link": '<http://elsewhere.example/v2/>; rel="next"'}, body))
    with pytest.raises(RegistryProtocolError, match="elsewhere"):
        client.tags(reference(registry))


@pytest.mark.parametrize("api", [True, False])
def test_referrers_by_the_api_and_by_the_older_tag(client: RegistryClient, api: bool) -> None:
    with FakeRegistry(referrers=api) as registry:
        digest = registry.put_artifact("team/app", "v1", [])
        about = {"subject": {"digest": digest}, "artifactType": "application/sig"}
        signature = registry.put_artifact("team/app", "sig", [], **about)
        entry = {"mediaType": OCI_MANIFEST, "digest": signature, "size": 1, "artifactType": "application/sig"}
        if not api:
            assert client.referrers(reference(registry)) == []
            registry.put_manifest("team/app", digest.replace(":", "-"), {"manifests": [entry]}, OCI_INDEX)
        assert [found.digest for found in client.referrers(reference(registry), "application/sig")] == [signature]
        assert client.referrers(reference(registry), "application/other") == []


def test_pushed_is_pulled(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BLOB)
    seen: list[tuple[int, int]] = []
    ref = reference(registry)
    pushed = client.push_blob(ref, source, progress=lambda done, total: seen.append((done, total)))
    assert pushed.digest == digest_of(BLOB)
    assert seen[-1] == (len(BLOB), len(BLOB))
    assert client.has_blob(ref, pushed.digest)
    assert client.push_blob(ref, b"{}").size == 2
    assert client.push_manifest(ref, b'{"a": 1}', OCI_MANIFEST) == client.resolve(ref).digest
    client.blob_to(ref, pushed, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == BLOB


def test_a_blob_that_is_there_is_not_sent_again(registry: FakeRegistry, client: RegistryClient) -> None:
    client.push_blob(reference(registry), BLOB)
    client.push_blob(reference(registry), BLOB)
    assert registry.count("PUT", "/blobs/uploads/") == 1


def test_a_blob_is_mounted_from_another_repository(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.put_blob("other/app", BLOB)
    client.push_blob(reference(registry), BLOB, mount_from="other/app")
    assert registry.blobs["team/app", digest_of(BLOB)] == BLOB
    assert registry.count("PUT", "/blobs/") == 0
    client.push_blob(reference(registry), b"new", mount_from="other/app")  # not there: sent after all
    assert registry.blobs["team/app", digest_of(b"new")] == b"new"


@pytest.mark.parametrize("fault", [Drop(), Status(503), Status(404)])
def test_a_broken_push_begins_anew(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path, fault: Drop | Status
) -> None:
    registry.fail("PUT", "/blobs/uploads/", fault, times=2)
    source = tmp_path / "source"
    source.write_bytes(BLOB)
    client.push_blob(reference(registry), source)
    assert registry.blobs["team/app", digest_of(BLOB)] == BLOB
    assert registry.count("POST", "/blobs/uploads/") == 3


def test_a_push_that_keeps_breaking_is_given_up(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail("PUT", "/blobs/uploads/", Drop(), times=99)
    with pytest.raises(RegistryUnreachableError):
        client.push_blob(reference(registry), BLOB)
    assert registry.count("PUT", "/blobs/uploads/") == 5


def test_a_push_refused_for_its_size_says_so(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail("PUT", "/blobs/uploads/", Status(413, body=b"too big for us"))
    with pytest.raises(RegistryRefusedError, match="413") as caught:
        client.push_blob(reference(registry), BLOB)
    assert caught.value.diagnostics[0].detail == "too big for us"


def test_a_manifest_is_pushed_under_the_digest_it_has(registry: FakeRegistry, client: RegistryClient) -> None:
    ref = reference(registry)
    digest = client.push_manifest(ref.at(digest_of(b"{}")), b"{}", OCI_MANIFEST)
    assert client.manifest(ref.at(digest)).data == b"{}"
    with pytest.raises(DigestMismatchError):
        client.push_manifest(ref.at(digest), b"{} ", OCI_MANIFEST)
    registry.fail("PUT", "/manifests/", Status(201, {"Docker-Content-Digest": digest_of(b"else")}))
    with pytest.raises(DigestMismatchError, match="stored"):
        client.push_manifest(ref, b"{}", OCI_MANIFEST)


def test_deletion_says_whether_there_was_something(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.put_artifact("team/app", "v1", [])
    assert client.delete_manifest(reference(registry)) is True
    assert client.delete_manifest(reference(registry)) is False
    registry.fail("DELETE", "/manifests/", Status(405))
    with pytest.raises(RegistryRefusedError, match="405"):
        client.delete_manifest(reference(registry))


# Mirrors


def mirrored(registry: FakeRegistry, *mirrors: FakeRegistry | str, exclusive: bool = False) -> Hosts:
    urls = [mirror if isinstance(mirror, str) else mirror.url for mirror in mirrors]
    endpoints = tuple(Endpoint(url) for url in urls)
    return Hosts({registry.host: endpoints}, frozenset({registry.host} if exclusive else ()))


def test_the_first_mirror_that_has_it_is_taken_and_told_whose_it_is(
    registry: FakeRegistry, client_for: ClientFactory
) -> None:
    with FakeRegistry() as empty, FakeRegistry() as full:
        digest = full.put_artifact("team/app", "v1", [])
        client = client_for(mirrored(registry, "http://127.0.0.1:1", empty, full))
        assert client.manifest(reference(registry)).digest == digest
        assert empty.requests[0].path.endswith(f"?ns={registry.host.replace(':', '%3A')}")
    assert registry.requests == []


@pytest.mark.parametrize("fault", [Status(404), Status(500), Status(403), Drop(), Corrupt(), Status(429)])
def test_whatever_is_wrong_with_a_mirror_the_registry_is_asked_next(
    registry: FakeRegistry, client_for: ClientFactory, tmp_path: Path, pauses: list[float], fault: Status | Drop
) -> None:
    with FakeRegistry() as mirror:
        mirror.put_blob("team/app", BLOB)
        mirror.fail("GET", "/blobs/", fault)
        client_for(mirrored(registry, mirror)).blob_to(reference(registry), stored(registry), tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert pauses == []  # falling back is the retry


def test_a_mirror_out_of_reach_is_asked_last_for_a_while(registry: FakeRegistry, client_for: ClientFactory) -> None:
    registry.put_artifact("team/app", "v1", [])
    clock = [0.0]
    with FakeRegistry() as mirror:
        mirror.put_artifact("team/app", "v1", [])
        mirror.fail("GET", "/manifests/", Drop())
        client = client_for(mirrored(registry, mirror), clock=lambda: clock[0])
        for _ in range(3):
            client.manifest(reference(registry))
        assert (mirror.count("GET", "/"), registry.count("GET", "/")) == (1, 3)
        clock[0] = 31.0
        client.manifest(reference(registry))
        assert (mirror.count("GET", "/"), registry.count("GET", "/")) == (2, 3)


def test_the_verdict_is_the_registrys_and_tells_of_the_mirrors(
    registry: FakeRegistry, client_for: ClientFactory
) -> None:
    with FakeRegistry() as mirror:
        mirror.fail("GET", "/manifests/", Status(403))
        client = client_for(mirrored(registry, mirror))
        with pytest.raises(ManifestUnknownError, match=registry.url) as caught:
            client.manifest(reference(registry))
        assert mirror.url in caught.value.diagnostics[0].detail


def test_an_alias_that_does_not_resolve_leaves_the_word_to_its_mirror(
    registry: FakeRegistry, client_for: ClientFactory
) -> None:
    client = client_for(Hosts({"cinderegg.invalid:5000": (Endpoint(registry.url),)}))
    ref = parse_reference("cinderegg.invalid:5000/team/app:v1")
    with pytest.raises(ManifestUnknownError, match="is not at http://127"):
        client.manifest(ref)
    digest = registry.put_artifact("team/app", "v1", [])
    assert client.manifest(ref).digest == digest


def test_an_exclusive_alias_is_pushed_to_and_pulled_from_its_mirror(
    registry: FakeRegistry, client_for: ClientFactory
) -> None:
    hosts = Hosts({"cinderegg:5000": (Endpoint(registry.url),)}, frozenset({"cinderegg:5000"}))
    client, ref = client_for(hosts), parse_reference("cinderegg:5000/team/app:v1")
    client.push_manifest(ref, b"{}", OCI_MANIFEST)
    assert client.manifest(reference(registry)).data == client.manifest(ref).data == b"{}"


def test_edited_mirrors_are_used_at_the_next_pull(registry: FakeRegistry, client_for: ClientFactory) -> None:
    hosts = [Hosts({"alias.invalid": (Endpoint("http://127.0.0.1:1"),)})]
    client, ref = client_for(lambda: hosts[0]), parse_reference("alias.invalid/team/app:v1")
    registry.put_artifact("team/app", "v1", [])
    with pytest.raises(RegistryUnreachableError):
        client.manifest(ref)
    hosts[0] = Hosts({"alias.invalid": (Endpoint(registry.url),)})
    assert client.manifest(ref)


def test_a_mirror_below_a_path_of_its_own(registry: FakeRegistry, client_for: ClientFactory) -> None:
    registry.put_artifact("team/app", "v1", [])
    hosts = Hosts({"alias.invalid": (Endpoint(f"{registry.url}/cache/v2", override_path=True),)})
    assert client_for(hosts).manifest(parse_reference("alias.invalid/team/app:v1"))
    assert registry.requests[0].path.startswith("/cache/v2/team/app/")


# Transport


def test_a_redirect_is_followed_for_content(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    with FakeRegistry() as storage:
        storage.put_blob("team/app", BLOB)
        registry.fail("GET", "/blobs/", Redirect(f"{storage.url}/v2/team/app/blobs/{digest_of(BLOB)}"))
        client.blob_to(reference(registry), descriptor(BLOB), tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB


def test_redirects_without_end_are_left(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail("GET", "/manifests/", Redirect("/v2/team/app/manifests/v1"), times=99)
    with pytest.raises(RegistryProtocolError, match="without end"):
        client.manifest(reference(registry))


def test_tls_is_trusted_by_the_ca_of_the_endpoint_only(
    client_for: ClientFactory, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    ca, context = certificate
    with FakeRegistry(tls=context) as registry:
        registry.put_artifact("team/app", "v1", [])
        ref = parse_reference("secure.invalid/team/app:v1")
        trusting = Hosts({"secure.invalid": (Endpoint(registry.url, ca=str(ca)),)}, frozenset({"secure.invalid"}))
        assert client_for(trusting).manifest(ref)
        assert client_for(Hosts({"secure.invalid": (Endpoint(registry.url),)}), ca=str(ca)).manifest(ref)
        strict = client_for(Hosts({"secure.invalid": (Endpoint(registry.url),)}, frozenset({"secure.invalid"})))
        with pytest.raises(RegistryUnreachableError, match="TLS") as caught:
            strict.manifest(ref)
        assert "certificate authority" in caught.value.diagnostics[0].hint


def test_from_tls_nothing_leads_to_plain_http(
    registry: FakeRegistry, client_for: ClientFactory, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    ca, context = certificate
    with FakeRegistry(tls=context) as secure:
        hosts = Hosts({"secure.invalid": (Endpoint(secure.url, ca=str(ca)),)}, frozenset({"secure.invalid"}))
        secure.fail("GET", "/manifests/", Redirect(f"{registry.url}/v2/team/app/manifests/v1"))
        with pytest.raises(RegistryProtocolError, match="plain http"):
            client_for(hosts).manifest(parse_reference("secure.invalid/team/app:v1"))
    assert registry.requests == []


def test_https_where_plain_http_is_spoken_says_what_to_write(registry: FakeRegistry, client_for: ClientFactory) -> None:
    url = registry.url.replace("http://", "https://")
    client = client_for(Hosts({"alias.invalid": (Endpoint(url),)}, frozenset({"alias.invalid"})))
    with pytest.raises(RegistryUnreachableError) as caught:
        client.manifest(parse_reference("alias.invalid/a"))
    assert registry.url in caught.value.diagnostics[0].hint


def test_a_ca_file_that_is_none_is_named(client_for: ClientFactory, tmp_path: Path) -> None:
    client = client_for(Hosts({"a.invalid": (Endpoint("https://127.0.0.1:1", ca=str(tmp_path / "no.pem")),)}))
    with pytest.raises(OciError) as caught:
        client.manifest(parse_reference("a.invalid/a"))
    assert "no.pem" in caught.value.diagnostics[0].detail + str(caught.value)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://r.example/", "http://plain:3128"),
        ("https://r.example/", "http://secure:3128"),
        ("https://sub.skip.example/", ""),
        ("https://skip.example/", ""),
        ("https://noskip.example/", "http://secure:3128"),
        ("https://10.1.2.3/", ""),
        ("https://11.1.2.3/", "http://secure:3128"),
        ("https://port.example:5000/", ""),
        ("https://port.example/", "http://secure:3128"),
        ("http://localhost:5000/", ""),
        ("http://127.0.0.9/", ""),
    ],
)
def test_proxies_by_the_common_variables(url: str, proxy: str) -> None:
    env = {
        "HTTP_PROXY": "http://wrong",
        "http_proxy": "plain:3128",
        "HTTPS_PROXY": "http://secure:3128",
        "NO_PROXY": ".skip.example,10.0.0.0/8 port.example:5000",
    }
    assert Proxies.from_env(env).for_url(url) == proxy


def test_no_proxy_star_means_none() -> None:
    assert Proxies.from_env({"HTTPS_PROXY": "http://p", "NO_PROXY": "*"}).for_url("https://a") == ""


def test_a_proxy_is_used(registry: FakeRegistry, client_for: ClientFactory) -> None:
    registry.fail("GET", "far.example", Status(404))  # asked as a proxy, with the whole URL
    hosts = Hosts({"far.example": (Endpoint("http://far.example"),)}, frozenset({"far.example"}))
    with pytest.raises(ManifestUnknownError):
        client_for(hosts, proxies=Proxies(http=registry.url)).manifest(parse_reference("far.example/a"))
    assert registry.requests[0].path == "http://far.example/v2/a/manifests/latest"


def test_an_endless_answer_is_bounded_wherever_it_comes(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.put_artifact("team/app", "v1", [])
    registry.fail("GET", "/manifests/", Endless())
    with pytest.raises(TooLargeError):
        client.manifest(reference(registry))
    registry.fail("GET", "/manifests/missing", Endless())  # a 404 without end
    with pytest.raises(ManifestUnknownError):
        client.manifest(reference(registry, "team/app:missing"))
