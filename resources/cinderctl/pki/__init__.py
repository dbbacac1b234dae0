"""Keys, certificates and signing requests as PEM bytes. Pure: no files, no clock; storing and rotating is elsewhere."""

from cinderctl.pki.certificates import CertificateInfo, Subject, describe, issue, self_signed_ca, signed_by
from cinderctl.pki.errors import PkiError
from cinderctl.pki.keys import key_algorithm, new_private_key, public_key_digest, public_key_pem
from cinderctl.pki.requests import RequestInfo, certificate_request, describe_request, key_matches

__all__ = [
    "CertificateInfo",
    "PkiError",
    "RequestInfo",
    "Subject",
    "certificate_request",
    "describe",
    "describe_request",
    "issue",
    "key_algorithm",
    "key_matches",
    "new_private_key",
    "public_key_digest",
    "public_key_pem",
    "self_signed_ca",
    "signed_by",
]
