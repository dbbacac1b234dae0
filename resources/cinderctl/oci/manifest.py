"""Manifests, indexes and descriptors as values, read from bytes nobody vouches for.

OCI image specification 1.1 and Docker's schema 2, which it grew from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cinderctl.oci.errors import RegistryProtocolError
from cinderctl.oci.reference import is_digest

__all__ = [
    "ACCEPT",
    "DOCKER_LIST",
    "DOCKER_MANIFEST",
    "INDEX_TYPES",
    "MAX_MANIFEST",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "Descriptor",
    "Index",
    "Manifest",
    "ManifestBytes",
    "parse_manifest",
]

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
ACCEPT: Final = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
MAX_MANIFEST: Final = 4 * 1024 * 1024  # bytes, what the distribution specification advises

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_MAX_ENTRIES: Final = 4096  # layers or manifests


class ManifestBytes(NamedTuple):
    """A manifest as the registry gave it; the digest is of these very bytes."""

    data: bytes
    media_type: str
    digest: str


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What names content. `size` in bytes; `platform` has `os`, `architecture` where an index says them."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    platform: Mapping[str, str] = field(default_factory=dict, compare=False)
    artifact_type: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return value | ({"annotations": dict(self.annotations)} if self.annotations else {})


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image or artifact."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    artifact_type: str


@dataclass(frozen=True, slots=True)
class Index:
    """Several, told apart by platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]


def parse_manifest(data: bytes, media_type: str, what: str) -> Manifest | Index:
    """A manifest or index from its bytes. Raises: RegistryProtocolError naming `what` and the field."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RegistryProtocolError(f"the manifest of {what} is not JSON") from error
    try:
        if not isinstance(value, dict):
            raise _WrongError("it is no object")
        if value.get("schemaVersion") == 1 or "fsLayers" in value:
            raise _WrongError("it has Docker's schema 1, which registries gave up long ago")
        # The document's own word counts before the header's: some registries answer with a generic type.
        kind = _text(value, "mediaType") or media_type
        if kind in INDEX_TYPES or ("manifests" in value and "layers" not in value):
            return Index(kind or OCI_INDEX, _descriptors(value, "manifests"), _strings(value, "annotations"))
        if "config" not in value:
            raise _WrongError("it has no config")
        return Manifest(
            kind or OCI_MANIFEST,
            _descriptor(value["config"], "config"),
            _descriptors(value, "layers"),
            _strings(value, "annotations"),
            _text(value, "artifactType"),
        )
    except _WrongError as error:
        raise RegistryProtocolError(f"the manifest of {what} cannot be used: {error}") from None


class _WrongError(Exception):
    pass


def _descriptors(value: Mapping[str, Any], name: str) -> tuple[Descriptor, ...]:
    items = value.get(name)
    if not isinstance(items, list):
        raise _WrongError(f"`{name}` is no list")
    if len(items) > _MAX_ENTRIES:
        raise _WrongError(f"`{name}` has {len(items)} entries")
    return tuple(_descriptor(item, f"{name}[{number}]") for number, item in enumerate(items))


def _descriptor(value: Any, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise _WrongError(f"`{where}` is no object")
    digest, size = _text(value, "digest", where), value.get("size")
    if not is_digest(digest):
        raise _WrongError(f"`{where}.digest` is no digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _WrongError(f"`{where}.size` is no size")
    return Descriptor(
        _text(value, "mediaType", where),
        digest,
        size,
        _strings(value, "annotations", where),
        _platform(value.get("platform"), where),
        _text(value, "artifactType", where),
    )


def _platform(value: Any, where: str) -> Mapping[str, str]:
    if value is None:
        return _NOTHING
    if not isinstance(value, dict):
        raise _WrongError(f"`{where}.platform` is no object")
    return {name: text for name, text in value.items() if isinstance(name, str) and isinstance(text, str)}


def _text(value: Mapping[str, Any], name: str, where: str = "") -> str:
    text = value.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise _WrongError(f"`{where}{'.' if where else ''}{name}` is no text")
    return text


def _strings(value: Mapping[str, Any], name: str, where: str = "") -> Mapping[str, str]:
    found = value.get(name)
    if found is None:
        return _NOTHING
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise _WrongError(f"`{where}{'.' if where else ''}{name}` is no object of texts")
    return found
