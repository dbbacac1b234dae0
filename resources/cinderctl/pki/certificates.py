"""X.509 certificates as Kubernetes, etcd and Go's crypto/tls want them, and what they say.

Names are checked by subject alternative names only (Go ignores the common name, RFC 6125); the common name and the
organizations are the user and the groups of a client certificate. Authority and subject key identifiers are always
present: strict verifiers (Python 3.13, RFC 5280 §4.2.1.1) refuse certificates without them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cinderctl.core.digest import sha256_of
from cinderctl.pki.errors import PkiError
from cinderctl.pki.keys import PublicKey, algorithm_of, load_key

__all__ = [
    "CertificateInfo",
    "Subject",
    "alternative_names",
    "describe",
    "issue",
    "load_certificate",
    "self_signed_ca",
    "signed_by",
    "subject_name",
    "subject_of",
]


@dataclass(frozen=True, slots=True)
class Subject:
    """Who: `common_name` and `organizations` are user and groups; DNS names and IP addresses where a server answers."""

    common_name: str
    organizations: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a certificate says. Times are aware, in UTC; `fingerprint` is `sha256:<hex>` of the DER form."""

    common_name: str
    organizations: tuple[str, ...]
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    is_ca: bool
    server: bool
    client: bool
    serial: int
    fingerprint: str
    algorithm: str
    issuer: str


def self_signed_ca(key_pem: bytes, common_name: str, *, not_before: datetime, days: int) -> bytes:
    """A certificate authority of its own. `not_before` is aware. Raises: PkiError."""
    key = load_key(key_pem)
    name = subject_name(Subject(common_name))
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(name, name, key.public_key(), _whole_seconds(not_before), _whole_seconds(not_before, days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=True, encipher=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def issue(
    ca_cert: bytes,
    ca_key: bytes,
    key_pem: bytes,
    subject: Subject,
    *,
    server: bool,
    client: bool,
    not_before: datetime,
    days: int,
) -> bytes:
    """A leaf certificate for the key, signed by the authority; it never outlasts the authority's own.

    Raises: PkiError when the authority's key is not its certificate's, it is no authority, it has expired by
    `not_before`, or a server is given no name to be reached at.
    """
    authority, signer, key = load_certificate(ca_cert), load_key(ca_key), load_key(key_pem).public_key()
    if authority.public_key() != signer.public_key():
        raise PkiError("the authority's key does not belong to its certificate")
    if not _is_ca(authority):
        raise PkiError(f"{_common_name(authority.subject)!r} is no certificate authority")
    if server and not (subject.dns_names or subject.ip_addresses):
        raise PkiError(f"a server certificate for {subject.common_name!r} needs a DNS name or an IP address")
    begin = _whole_seconds(not_before)
    end = min(_whole_seconds(not_before, days), authority.not_valid_after_utc)
    if end <= begin:
        raise PkiError(f"the authority {_common_name(authority.subject)!r} has expired", hint="renew it first")
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
    builder = (
        _builder(subject_name(subject), authority.subject, key, begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False, encipher=isinstance(key, rsa.RSAPublicKey)), critical=True)
        .add_extension(_authority_identifier(authority), critical=False)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    names = alternative_names(subject)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


def describe(cert_pem: bytes) -> CertificateInfo:
    """The first certificate of a PEM file in words. Raises: PkiError."""
    certificate = load_certificate(cert_pem)
    subject = subject_of(certificate.subject, certificate.extensions)
    usages = _extended_usages(certificate)
    return CertificateInfo(
        common_name=subject.common_name,
        organizations=subject.organizations,
        dns_names=subject.dns_names,
        ip_addresses=subject.ip_addresses,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_ca=_is_ca(certificate),
        server=ExtendedKeyUsageOID.SERVER_AUTH in usages,
        client=ExtendedKeyUsageOID.CLIENT_AUTH in usages,
        serial=certificate.serial_number,
        fingerprint=sha256_of(certificate.public_bytes(Encoding.DER)),
        algorithm=algorithm_of(certificate.public_key()),
        issuer=_common_name(certificate.issuer),
    )


def signed_by(cert_pem: bytes, ca_cert: bytes) -> bool:
    """Whether the authority's key signed the certificate (validity periods are not looked at). Raises: PkiError."""
    certificate, authority = load_certificate(cert_pem), load_certificate(ca_cert)
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return _is_ca(authority)


def load_certificate(cert_pem: bytes) -> x509.Certificate:
    """The first certificate of a PEM file. Raises: PkiError."""
    try:
        return x509.load_pem_x509_certificate(cert_pem)
    except ValueError as error:
        raise PkiError("the certificate cannot be read", detail="It is no PEM certificate") from error


def subject_name(subject: Subject) -> x509.Name:
    """Organizations first, as kubeadm writes them. Raises: PkiError for an empty or too long common name."""
    try:
        return x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in subject.organizations]
            + [x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name)]
        )
    except ValueError as error:
        raise PkiError(f"not a certificate subject: {subject.common_name!r}", detail=str(error)) from error


def alternative_names(subject: Subject) -> x509.SubjectAlternativeName | None:
    """None when there are none. Raises: PkiError for what is no address or no ASCII name."""
    try:
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in subject.dns_names]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in subject.ip_addresses]
    except ValueError as error:
        raise PkiError("not a name for a certificate", detail=str(error)) from error
    return x509.SubjectAlternativeName(names) if names else None


def subject_of(name: x509.Name, extensions: x509.Extensions) -> Subject:
    """What a name and the alternative names beside it say."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    return Subject(
        common_name=_common_name(name),
        organizations=tuple(str(item.value) for item in name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
        dns_names=tuple(names.get_values_for_type(x509.DNSName)),
        ip_addresses=tuple(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, sign_certificates: bool, encipher: bool) -> x509.KeyUsage:
    """`encipher` is for RSA keys only: key transport of TLS 1.2 (RFC 5280 §4.2.1.3)."""
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=encipher,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:  # an authority the user brought
        identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _extended_usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return set()


def _common_name(name: x509.Name) -> str:
    return next((str(item.value) for item in name.get_attributes_for_oid(NameOID.COMMON_NAME)), "")


def _whole_seconds(moment: datetime, days: int = 0) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a certificate's times must carry a time zone")
    return moment.astimezone(UTC).replace(microsecond=0) + timedelta(days=days)
