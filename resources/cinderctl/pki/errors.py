"""The one error of this package."""

from cinderctl.core.diagnostics import CinderError

__all__ = ["PkiError"]


class PkiError(CinderError):
    """A key, certificate or request that cannot be read or does not fit. Never carries key material."""
