"""Private keys (PKCS #8 PEM, not encrypted: the file's mode guards them) and their public halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from cinderctl.core.digest import sha256_of
from cinderctl.pki.errors import PkiError

__all__ = [
    "PrivateKey",
    "PublicKey",
    "algorithm_of",
    "digest_of_public",
    "key_algorithm",
    "load_key",
    "new_private_key",
    "public_key_digest",
    "public_key_pem",
]

PrivateKey: TypeAlias = "ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey"
PublicKey: TypeAlias = "ec.EllipticCurvePublicKey | rsa.RSAPublicKey"

# What Go's crypto/tls and every Kubernetes component take for TLS and for service-account tokens.
_MAKERS: dict[str, Callable[[], PrivateKey]] = {
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
}
_CURVES = {"secp256r1": "ecdsa-p256", "secp384r1": "ecdsa-p384", "secp521r1": "ecdsa-p521"}


def new_private_key(algorithm: str = "ecdsa-p256") -> bytes:
    """A new key as PKCS #8 PEM (`PRIVATE KEY`). Raises: PkiError for an algorithm we do not make."""
    maker = _MAKERS.get(algorithm)
    if maker is None:
        raise PkiError(f"unknown key algorithm {algorithm!r}", hint=f"use one of {', '.join(_MAKERS)}")
    return maker().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_key_pem(key_pem: bytes) -> bytes:
    """The public half as `PUBLIC KEY` PEM. Raises: PkiError."""
    return load_key(key_pem).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_key_digest(key_pem: bytes) -> str:
    """`sha256:<hex>` of the public half (its SubjectPublicKeyInfo in DER): names a key without showing it."""
    return digest_of_public(load_key(key_pem).public_key())


def key_algorithm(key_pem: bytes) -> str:
    """In the words of `new_private_key`. Raises: PkiError."""
    return algorithm_of(load_key(key_pem).public_key())


def load_key(key_pem: bytes) -> PrivateKey:
    """Read a PEM private key of any usual form. Raises: PkiError, without a word about its content."""
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # `from None`: the parser's complaint may quote the file, and a key file must never reach a message.
        raise PkiError("the private key cannot be read", detail="It is no PEM private key, or is encrypted") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise PkiError("the private key is neither ECDSA nor RSA")
    return key


def algorithm_of(key: object) -> str:
    """Name of a public key's algorithm; "unknown" for those we neither make nor use."""
    match key:
        case ec.EllipticCurvePublicKey():
            return _CURVES.get(key.curve.name, f"ecdsa-{key.curve.name}")
        case rsa.RSAPublicKey():
            return f"rsa-{key.key_size}"
        case _:
            return "unknown"


def digest_of_public(key: PublicKey) -> str:
    return sha256_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
