"""Image references, `[registry/]repository[:tag][@digest]`, by the distribution grammar and Docker's defaults.

The rules a user relies on (https://github.com/distribution/reference): the part before the first slash is a registry
when it has a dot, a colon or an upper-case letter, or is `localhost`; otherwise the reference is Docker Hub's, and a
single name there lives under `library/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from cinderctl.oci.errors import InvalidReferenceError

__all__ = ["DEFAULT_REGISTRY", "DEFAULT_TAG", "Reference", "is_digest", "parse_reference"]

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"

_LEGACY_HUB: Final = "index.docker.io"
_MAX_REPOSITORY: Final = 255  # characters, the distribution project's bound

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", re.ASCII)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[a-zA-Z][a-zA-Z0-9]*(?:[-_+.][a-zA-Z][a-zA-Z0-9]*)*:[0-9a-fA-F]{32,}", re.ASCII)
_KNOWN_DIGESTS: Final = {"sha256": re.compile(r"[0-9a-f]{64}"), "sha512": re.compile(r"[0-9a-f]{128}")}
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, order=True, slots=True)
class Reference:
    """A whole reference.

    `tag` is empty only when a digest was given without one; `digest` is empty or `algorithm:hex`.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest, which wins over the tag, or the tag."""
        return self.digest or self.tag

    @property
    def name(self) -> str:
        """`registry/repository`, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    def at(self, digest: str) -> Reference:
        """The same repository, pinned to a digest."""
        return replace(self, tag="", digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def is_digest(text: str) -> bool:
    """Whether text is a digest whose algorithm we can check (sha256, sha512)."""
    algorithm, _, encoded = text.partition(":")
    known = _KNOWN_DIGESTS.get(algorithm)
    return known is not None and known.fullmatch(encoded) is not None


def parse_reference(text: str) -> Reference:
    """A reference from what a user writes.

    Without tag and digest the tag is `latest`. Raises: InvalidReferenceError.
    """
    if not text or text != text.strip():
        raise _invalid(text, "it is empty" if not text.strip() else "it begins or ends with a space")
    if "://" in text:
        raise _invalid(text, "it has a scheme", hint=f"write it without one: `{text.partition('://')[2]}`")
    if _IMAGE_ID.fullmatch(text):
        raise _invalid(text, "64 hexadecimal digits are an image ID, not a name")
    rest, _, digest = text.partition("@")
    if "@" in text:
        _check_digest(text, digest)
    registry, path = _split_registry(rest)
    repository, tag = _split_tag(text, path)
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    if _REGISTRY.fullmatch(registry) is None:
        raise _invalid(text, f"`{registry}` is no registry host")
    if _REPOSITORY.fullmatch(repository) is None:
        raise _invalid_repository(text, repository)
    if len(repository) > _MAX_REPOSITORY:
        raise _invalid(text, f"the repository has {len(repository)} characters, at most {_MAX_REPOSITORY} are allowed")
    return Reference(registry, repository, tag or ("" if digest else DEFAULT_TAG), digest)


def _split_registry(rest: str) -> tuple[str, str]:
    first, slash, path = rest.partition("/")
    named = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not named:
        return DEFAULT_REGISTRY, rest
    return (DEFAULT_REGISTRY if first == _LEGACY_HUB else first), path


def _split_tag(text: str, path: str) -> tuple[str, str]:
    repository, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:
        return path, ""
    if _TAG.fullmatch(tag) is None:
        raise _invalid(text, f"`{tag}` is no tag (letters, digits, `_`, `.`, `-`; at most 128; not `.` or `-` first)")
    return repository, tag


def _check_digest(text: str, digest: str) -> None:
    if is_digest(digest):
        return
    algorithm = digest.partition(":")[0]
    if _DIGEST.fullmatch(digest) is not None and algorithm not in _KNOWN_DIGESTS:
        raise _invalid(text, f"digests of algorithm `{algorithm}` cannot be checked", hint="use a sha256 digest")
    raise _invalid(text, f"`{digest}` is no digest", hint="a digest is `sha256:` and 64 lower-case hexadecimal digits")


def _invalid_repository(text: str, repository: str) -> InvalidReferenceError:
    if repository.lower() != repository and _REPOSITORY.fullmatch(repository.lower()):
        return _invalid(text, "a repository is written in lower case", hint=f"did you mean `{repository.lower()}`?")
    return _invalid(text, f"`{repository}` is no repository name")


def _invalid(text: str, why: str, *, hint: str = "") -> InvalidReferenceError:
    shown = text if len(text) <= 120 else f"{text[:117]}..."
    return InvalidReferenceError(f"invalid image reference `{shown}`: {why}", hint=hint)
