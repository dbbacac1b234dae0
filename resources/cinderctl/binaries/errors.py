"""What can go wrong between a name and a file that runs. Each says which source failed, where, and why."""

from __future__ import annotations

from cinderctl.core.diagnostics import CinderError, Diagnostic

__all__ = [
    "BinaryError",
    "BuildError",
    "ChecksumError",
    "DownloadError",
    "NotPublishedError",
    "StalledError",
    "TruncatedError",
    "UnavailableError",
    "UnreachableError",
    "VersionMismatchError",
]


class BinaryError(CinderError):
    pass


class DownloadError(BinaryError):
    """A download failed; the diagnostic's `source` is the URL."""

    def __init__(self, summary: str, url: str, *, detail: str = "", hint: str = "") -> None:
        super().__init__(Diagnostic(summary, detail=detail, hint=hint, source=url))
        self.url = url


class NotPublishedError(DownloadError):
    """The server is there and has no such file."""


class UnreachableError(DownloadError):
    """No connection, or none that can be trusted."""


class StalledError(DownloadError):
    """The connection stands and nothing arrives."""


class TruncatedError(DownloadError):
    """The connection ended before the file did."""


class ChecksumError(DownloadError):
    """The file is whole and is not the one that was published."""


class BuildError(BinaryError):
    """No toolchain, no modules, or the compiler said no."""


class VersionMismatchError(BinaryError):
    """A binary in the user's own directory is of another version than the one asked for."""


class UnavailableError(BinaryError):
    """Every source failed; the detail says how each did and the hint lists the ways out."""
