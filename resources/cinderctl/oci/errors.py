"""What can go wrong between us and a registry.

OciError
├── InvalidReferenceError      the text is no image reference
├── MirrorsFileError           the mirrors file is corrupt
├── CredentialsError           a credential store or pull secret cannot be used
├── ManifestUnknownError       the registry answered: no such manifest (or repository)
├── BlobUnknownError           the registry answered: no such blob
├── UnauthorizedError          401 or 403, after every login known for the repository
├── RegistryRefusedError       any other refusal (4xx), with the registry's own words
├── RegistryProtocolError      the answer breaks the distribution protocol
├── DigestMismatchError        bytes are not the ones their digest names
├── TooLargeError              more bytes than the bound or the descriptor allows
├── NotWasmError               what was pulled is not a WebAssembly module or component
├── TruncatedError             the body ended early, again and again            (transient)
├── RateLimitedError           429 that outlasted the retries                   (transient)
└── RegistryUnreachableError   no connection, or 5xx that outlasted the retries (transient)

The transient ones are `TransientError`s too, so a caller may try again after `retry_after` seconds.
A local file that cannot be read or written is `cinderctl.host.files.StorageError`, as everywhere.
"""

from __future__ import annotations

from cinderctl.core.diagnostics import CinderError, TransientError

__all__ = [
    "BlobUnknownError",
    "CredentialsError",
    "DigestMismatchError",
    "InvalidReferenceError",
    "ManifestUnknownError",
    "MirrorsFileError",
    "NotWasmError",
    "OciError",
    "RateLimitedError",
    "RegistryProtocolError",
    "RegistryRefusedError",
    "RegistryUnreachableError",
    "TooLargeError",
    "TruncatedError",
    "UnauthorizedError",
]


class OciError(CinderError):
    """Root of this package's errors."""


class InvalidReferenceError(OciError):
    pass


class MirrorsFileError(OciError):
    pass


class CredentialsError(OciError):
    pass


class ManifestUnknownError(OciError):
    pass


class BlobUnknownError(OciError):
    pass


class UnauthorizedError(OciError):
    pass


class RegistryRefusedError(OciError):
    pass


class RegistryProtocolError(OciError):
    pass


class DigestMismatchError(OciError):
    pass


class TooLargeError(OciError):
    pass


class NotWasmError(OciError):
    pass


class TruncatedError(OciError, TransientError):
    pass


class RateLimitedError(OciError, TransientError):
    pass


class RegistryUnreachableError(OciError, TransientError):
    pass
