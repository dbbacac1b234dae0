"""Certificate signing requests, made by those who want a certificate and read by those who approve it."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cinderctl.pki.certificates import Subject, alternative_names, load_certificate, subject_name, subject_of
from cinderctl.pki.errors import PkiError
from cinderctl.pki.keys import digest_of_public, load_key

__all__ = ["RequestInfo", "certificate_request", "describe_request", "key_matches"]


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What a request asks for, and the digest of the key it is for (`keys.public_key_digest` of the same key)."""

    subject: Subject
    public_key: str


def certificate_request(key_pem: bytes, subject: Subject) -> bytes:
    """PEM `CERTIFICATE REQUEST`. No alternative names, no such extension: the client signers of Kubernetes refuse them.

    Raises: PkiError.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject_name(subject))
    names = alternative_names(subject)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(load_key(key_pem), hashes.SHA256()).public_bytes(Encoding.PEM)


def describe_request(csr_pem: bytes) -> RequestInfo:
    """Raises: PkiError, also when the request is not signed by the key it is for."""
    request = _load_request(csr_pem)
    if not request.is_signature_valid:
        raise PkiError("the signing request's signature is wrong")
    return RequestInfo(subject_of(request.subject, request.extensions), _public_digest(request))


def key_matches(cert_or_csr: bytes, key_pem: bytes) -> bool:
    """Whether a certificate or a request is for this key. Raises: PkiError."""
    is_request = b"-----BEGIN CERTIFICATE REQUEST-----" in cert_or_csr
    holder = _load_request(cert_or_csr) if is_request else load_certificate(cert_or_csr)
    return _public_digest(holder) == digest_of_public(load_key(key_pem).public_key())


def _load_request(csr_pem: bytes) -> x509.CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(csr_pem)
    except ValueError as error:
        raise PkiError("the signing request cannot be read", detail="It is no PEM certificate request") from error


def _public_digest(holder: x509.Certificate | x509.CertificateSigningRequest) -> str:
    key = holder.public_key()
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise PkiError("the key is neither ECDSA nor RSA")
    return digest_of_public(key)
