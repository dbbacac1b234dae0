"""Certificates: renewed in time with their own key, and nothing left when they go."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import timedelta

import pytest

from cinderctl.core.address import Address
from cinderctl.engine.kinds import Existence
from cinderctl.pki import describe, key_matches, new_private_key, signed_by
from cinderctl.resources.certificate import CertificateInputs, CertificateKind

from .conftest import Life, everything_below

CA = CertificateInputs(usage="ca", common_name="kubernetes", validity_days=3650)
SERVER = CertificateInputs(
    usage="server",
    common_name="kube-apiserver",
    dns_names=("kubernetes", "localhost"),
    ip_addresses=("10.96.0.1", "127.0.0.1"),
    signer="ca",
)
ADMIN = CertificateInputs(
    usage="client", common_name="kubernetes-admin", organizations=("system:masters",), signer="ca"
)
KEY = CertificateInputs(usage="key")


@pytest.fixture
def life(context):
    kind = CertificateKind(context)
    return lambda name: Life(kind, Address("certificate", name))


@pytest.fixture
def ca(life):
    made = life("ca")
    made.create(CA)
    return made


@pytest.mark.parametrize(
    ("name", "want"),
    [("apiserver", SERVER), ("admin", ADMIN), ("service-account", KEY)],
    ids=["server", "client", "key"],
)
def test_a_life(name, want, life, ca, context):
    before = everything_below(context.home.state)
    one = life(name)
    assert not one.exists()
    made = one.create(want)
    assert one.changed(want) == []
    assert dict(one.observe().outputs) == dict(made)
    assert one.discovered() == [ca.address, one.address] if name > "ca" else [one.address, ca.address]
    one.delete()
    assert not one.exists()
    assert everything_below(context.home.state) == before


def test_an_update_changes_the_names_and_keeps_the_key(life, ca, context):
    one = life("apiserver")
    one.create(SERVER)
    key = (context.cluster.pki / "apiserver.key").read_bytes()
    want = replace(SERVER, dns_names=("kubernetes", "example.com"))
    assert one.changed(want) == ["dns_names"]
    one.update(want)
    assert one.changed(want) == []
    pem = (context.cluster.pki / "apiserver.crt").read_bytes()
    assert describe(pem).dns_names == ("kubernetes", "example.com")
    assert (context.cluster.pki / "apiserver.key").read_bytes() == key
    assert key_matches(pem, key)
    assert signed_by(pem, (context.cluster.pki / "ca.crt").read_bytes())


def test_keys_are_for_the_user_alone(life, ca, context):
    life("admin").create(ADMIN)
    for path in context.cluster.pki.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(context.cluster.pki.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("days", "seen"),
    [
        (0, "valid"),
        (334, "valid"),
        (336, "renewal due, expires 2030-12-31"),
        (364, "renewal due, expires 2030-12-31"),
        (366, "expired 2030-12-31"),
        (-1, "not valid before 2029-12-31 23:55 UTC"),
    ],
)
def test_a_certificate_is_renewed_before_it_expires(days, seen, life, ca, clock):
    one = life("admin")
    one.create(ADMIN)
    clock.now += timedelta(days=days)
    assert one.observe().attributes["expiry"] == seen
    assert one.changed(ADMIN) == ([] if seen == "valid" else ["expiry"])
    one.update(ADMIN)
    assert one.changed(ADMIN) == []


def test_a_short_life_is_renewed_in_its_last_third(life, ca, clock):
    want = replace(ADMIN, validity_days=3)
    one = life("admin")
    one.create(want)
    clock.now += timedelta(days=1)
    assert one.changed(want) == []
    clock.now += timedelta(days=1, hours=1)
    assert one.changed(want) == ["expiry"]


def test_an_interrupted_create_is_taken_over_with_its_key(life, ca, context):
    """The key came to disk, the record did not."""
    key = new_private_key()
    (context.cluster.pki / "admin.key").write_bytes(key)
    one = life("admin")
    assert one.observe().existence is Existence.ABSENT
    one.create(ADMIN)
    assert (context.cluster.pki / "admin.key").read_bytes() == key
    assert one.changed(ADMIN) == []


def _remove(path):
    path.unlink()


def _damage(path):
    path.write_text("-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize("harm", [_remove, _damage])
def test_a_lost_or_damaged_certificate_is_seen_and_mended(harm, life, ca, context):
    one = life("admin")
    one.create(ADMIN)
    harm(context.cluster.pki / "admin.crt")
    seen = one.observe()
    assert seen.existence is Existence.PRESENT
    assert seen.attributes["expiry"] == "unreadable"
    one.update(ADMIN)
    assert one.changed(ADMIN) == []


@pytest.mark.parametrize("harm", [_remove, _damage])
def test_a_lost_or_damaged_public_key_is_seen_and_mended(harm, life, context):
    one = life("service-account")
    one.create(KEY)
    harm(context.cluster.pki / "service-account.pub")
    assert one.changed(KEY) == ["expiry"]
    one.update(KEY)
    assert one.changed(KEY) == []


def test_a_lost_key_makes_the_resource_absent(life, ca, context):
    one = life("admin")
    one.create(ADMIN)
    (context.cluster.pki / "admin.key").unlink()
    assert not one.exists()


def test_what_another_ca_signed_does_not_count(life, ca):
    """The CA was made anew, with a new key: what the old one signed must follow."""
    one = life("admin")
    one.create(ADMIN)
    ca.delete()
    ca.create(CA)
    assert one.observe().attributes["expiry"] == "not signed by its CA for its key"
    one.update(ADMIN)
    assert one.changed(ADMIN) == []


def test_what_a_renewed_ca_signed_still_counts(life, ca, clock):
    one = life("admin")
    one.create(replace(ADMIN, validity_days=3650))
    clock.now += timedelta(days=100)
    ca.update(CA)
    assert one.changed(replace(ADMIN, validity_days=3650)) == []


def test_discovery_leaves_out_what_is_asked_for_one_by_one(life, ca):
    one = life("admin")
    one.create(ADMIN)
    assert one.discovered(ca.address) == [one.address]
