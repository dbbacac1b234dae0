"""Certificates that real TLS peers accept, and what we read back from them."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cinderctl.pki import (
    PkiError,
    Subject,
    certificate_request,
    describe,
    describe_request,
    issue,
    key_algorithm,
    key_matches,
    new_private_key,
    public_key_digest,
    public_key_pem,
    self_signed_ca,
    signed_by,
)

NOW = datetime(2031, 5, 4, 3, 2, 1, 999, tzinfo=UTC)
CA_KEY = new_private_key()
CA = self_signed_ca(CA_KEY, "kubernetes", not_before=NOW, days=3650)
KEY = new_private_key()
APISERVER = Subject("kube-apiserver", (), ("kubernetes", "localhost"), ("127.0.0.1", "10.96.0.1", "::1"))


def leaf(key: bytes = KEY, subject: Subject = APISERVER, *, server: bool = True, client: bool = False) -> bytes:
    return issue(CA, CA_KEY, key, subject, server=server, client=client, not_before=NOW, days=365)


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "ecdsa-p384", "rsa-2048"])
def test_keys_are_pkcs8_and_name_their_algorithm(algorithm: str) -> None:
    key = new_private_key(algorithm)
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert public_key_pem(key).startswith(b"-----BEGIN PUBLIC KEY-----\n")
    assert key_algorithm(key) == algorithm
    assert describe(leaf(key)).algorithm == algorithm


def test_an_unknown_algorithm_names_the_known_ones() -> None:
    with pytest.raises(PkiError) as caught:
        new_private_key("dsa")
    assert "ecdsa-p256" in caught.value.diagnostics[0].hint


def test_a_certificate_says_what_was_asked_for() -> None:
    info = describe(leaf(client=True))
    assert (info.common_name, info.dns_names) == ("kube-apiserver", ("kubernetes", "localhost"))
    assert info.ip_addresses == ("127.0.0.1", "10.96.0.1", "::1")
    assert (info.server, info.client, info.is_ca, info.issuer) == (True, True, False, "kubernetes")
    assert info.not_before == NOW.replace(microsecond=0)
    assert info.not_after - info.not_before == timedelta(days=365)
    admin = describe(leaf(subject=Subject("kubernetes-admin", ("a:masters", "b")), server=False, client=True))
    assert (admin.organizations, admin.server, admin.client) == (("a:masters", "b"), False, True)
    assert admin.serial != info.serial
    assert describe(CA).is_ca


def test_a_leaf_does_not_outlast_its_authority() -> None:
    cert = issue(CA, CA_KEY, KEY, APISERVER, server=True, client=False, not_before=NOW, days=36500)
    assert describe(cert).not_after == describe(CA).not_after
    late = NOW + timedelta(days=3651)
    with pytest.raises(PkiError, match="has expired"):
        issue(CA, CA_KEY, KEY, APISERVER, server=True, client=False, not_before=late, days=1)


def test_signed_by_believes_signatures_not_names() -> None:
    impostor_key = new_private_key()
    impostor = self_signed_ca(impostor_key, "kubernetes", not_before=NOW, days=1)
    assert signed_by(leaf(), CA)
    assert signed_by(CA, CA)
    assert not signed_by(leaf(), impostor)
    assert not signed_by(CA, leaf())


def test_an_authority_is_used_only_with_its_own_key_and_only_if_it_is_one() -> None:
    with pytest.raises(PkiError, match="does not belong"):
        issue(CA, KEY, KEY, APISERVER, server=True, client=False, not_before=NOW, days=1)
    with pytest.raises(PkiError, match="is no certificate authority"):
        issue(leaf(), KEY, KEY, APISERVER, server=True, client=False, not_before=NOW, days=1)


def test_a_server_needs_a_name_and_names_must_be_names() -> None:
    with pytest.raises(PkiError, match="needs a DNS name"):
        leaf(subject=Subject("x"))
    with pytest.raises(PkiError, match="not a name"):
        leaf(subject=Subject("x", ip_addresses=("10.0.0.0/8",)))
    with pytest.raises(PkiError, match="not a certificate subject"):
        leaf(subject=Subject("", dns_names=("x",)))


def test_a_request_carries_names_and_key() -> None:
    subject = Subject("system:node:cinder-wasi", ("system:nodes",), ("cinder-wasi",), ("10.244.255.1",))
    request = certificate_request(KEY, subject)
    assert describe_request(request).subject == subject
    assert describe_request(request).public_key == public_key_digest(KEY)
    assert key_matches(request, KEY)
    assert key_matches(leaf(), KEY)
    assert not key_matches(leaf(), CA_KEY)
    client = certificate_request(KEY, Subject("system:node:x", ("system:nodes",)))
    assert describe_request(client).subject.dns_names == ()


def test_damaged_input_is_an_error_that_shows_nothing_of_a_key() -> None:
    broken = KEY.replace(b"M", b"!")
    for call in (
        lambda: public_key_pem(broken),
        lambda: describe(KEY),
        lambda: describe_request(leaf()),
        lambda: key_matches(leaf(), broken),
        lambda: describe(b""),
    ):
        with pytest.raises(PkiError) as caught:
            call()
        assert KEY.split(b"\n")[1][:12].decode() not in repr(caught.value.diagnostics)
    request = certificate_request(KEY, Subject("x"))
    lines = request.split(b"\n")
    swapped = bytes(lines[-3][:-8]) + b"AAAAAAA="
    with pytest.raises(PkiError):
        describe_request(b"\n".join([*lines[:-3], swapped, *lines[-2:]]))


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "rsa-2048"])
def test_a_strict_tls_peer_accepts_both_sides(tmp_path: Path, algorithm: str) -> None:
    """Mutual TLS in memory, verified as strictly as OpenSSL can (key identifiers, key usages)."""
    begin = datetime.now(UTC) - timedelta(minutes=5)
    ca_key = new_private_key(algorithm)
    ca = self_signed_ca(ca_key, "etcd-ca", not_before=begin, days=2)
    (tmp_path / "ca.crt").write_bytes(ca)
    for name, subject in (("server", APISERVER), ("client", Subject("admin", ("system:masters",)))):
        key = new_private_key(algorithm)
        server = name == "server"
        cert = issue(ca, ca_key, key, subject, server=server, client=not server, not_before=begin, days=1)
        (tmp_path / f"{name}.pem").write_bytes(cert + key)

    def context(protocol: int, name: str) -> ssl.SSLContext:
        made = ssl.SSLContext(protocol)
        made.load_verify_locations(tmp_path / "ca.crt")
        made.load_cert_chain(tmp_path / f"{name}.pem")
        made.verify_mode = ssl.CERT_REQUIRED
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = context(ssl.PROTOCOL_TLS_CLIENT, "client").wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    server_side = context(ssl.PROTOCOL_TLS_SERVER, "server").wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    assert done == {client_side, server_side}
    peer = server_side.getpeercert()
    assert peer is not None
    assert (("organizationName", "system:masters"),) in peer["subject"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_agrees(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(CA)
    (tmp_path / "leaf.crt").write_bytes(leaf())
    moment = str(int((NOW + timedelta(days=1)).timestamp()))
    verify = ["openssl", "verify", "-x509_strict", "-attime", moment, "-purpose", "sslserver", "-verify_ip", "::1"]
    done = subprocess.run([*verify, "-CAfile", "ca.crt", "leaf.crt"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
