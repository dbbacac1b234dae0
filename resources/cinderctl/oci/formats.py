"""The ways a WebAssembly module lies in a registry, as manifests: telling them apart and building ours.

| format | what shows it | |---|---| | cncf | config `application/vnd.wasm.config.v0+json`, one layer
`application/wasm` | | wasm-to-oci | config `application/vnd.wasm.config.v1+json`, layer
`application/vnd.wasm.content.layer.v1+wasm` (Krustlet's) | | solo | config or layer `application/vnd.module.wasm...`
(Istio, Envoy, GitLab) | | runwasi | layer `application/vnd.bytecodealliance.wasm.component.layer.v0+wasm` | | spin |
config or layer `application/vnd.fermyon.spin.application.v1+config` | | compat | an image whose annotation
`module.wasm.image/variant` says compat (crun, solo.io) | | docker | an image for wasi/wasm, its Entrypoint naming the
file | | bare | none of these, but a layer whose media type ends in `+wasm` |
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Final, Literal, TypeAlias

from cinderctl.core.digest import sha256_of
from cinderctl.oci.errors import NotWasmError
from cinderctl.oci.manifest import OCI_MANIFEST, Descriptor, Index, Manifest
from cinderctl.oci.wasm import WasmInfo

__all__ = [
    "IMAGE_CONFIGS",
    "Format",
    "PushFormat",
    "Recipe",
    "build",
    "choose_platform",
    "format_of",
    "image_refusal",
    "is_tar",
    "wasm_layers",
]

Format: TypeAlias = Literal["cncf", "wasm-to-oci", "solo", "runwasi", "spin", "compat", "docker", "bare"]
PushFormat: TypeAlias = Literal["cncf", "wasm-to-oci", "docker"]

CNCF_CONFIG: Final = "application/vnd.wasm.config.v0+json"
CNCF_LAYER: Final = "application/wasm"
KRUSTLET_CONFIG: Final = "application/vnd.wasm.config.v1+json"
KRUSTLET_LAYER: Final = "application/vnd.wasm.content.layer.v1+wasm"
SOLO_CONFIG: Final = "application/vnd.module.wasm.config.v1+json"
SOLO_LAYER: Final = "application/vnd.module.wasm.content.layer.v1+wasm"
RUNWASI_LAYER: Final = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"
SPIN_CONFIG: Final = "application/vnd.fermyon.spin.application.v1+config"
OCI_IMAGE_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_IMAGE_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
IMAGE_CONFIGS: Final = frozenset({OCI_IMAGE_CONFIG, DOCKER_IMAGE_CONFIG})

_LAYER_FORMATS: Final[Mapping[str, Format]] = {
    CNCF_LAYER: "cncf",
    KRUSTLET_LAYER: "wasm-to-oci",
    SOLO_LAYER: "solo",
    RUNWASI_LAYER: "runwasi",
}
_TITLE: Final = "org.opencontainers.image.title"
_VARIANT: Final = "module.wasm.image/variant"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PLATFORMS: Final = (("wasip1", "wasm"), ("wasi", "wasm"), ("wasip2", "wasm"))  # in order of preference
_PURPOSE: Final = "wasm nodes run WebAssembly modules"


def wasm_layers(manifest: Manifest) -> list[Descriptor]:
    """The layers that are modules as they are, by media type: the known ones, and whatever ends in `+wasm`."""
    return [
        layer for layer in manifest.layers if layer.media_type in _LAYER_FORMATS or layer.media_type.endswith("+wasm")
    ]


def is_tar(layer: Descriptor) -> bool:
    """Whether a layer is a file system layer of an image: tar or tar+gzip, in OCI's or Docker's words."""
    kind = layer.media_type
    oci = kind.startswith("application/vnd.oci.image.layer.") and kind.endswith((".tar", ".tar+gzip"))
    return oci or (kind.startswith("application/vnd.docker.image.rootfs.") and kind.endswith((".tar", ".tar.gzip")))


def format_of(manifest: Manifest) -> Format | None:
    """The format a manifest shows; None for an image that says nothing of WebAssembly (its config may still)."""
    config = manifest.config.media_type
    layers = {layer.media_type for layer in manifest.layers}
    if SPIN_CONFIG in {config, manifest.artifact_type} or SPIN_CONFIG in layers:
        return "spin"
    if config == SOLO_CONFIG:  # GitLab stores these with wasm-to-oci's layer type
        return "solo"
    for layer in wasm_layers(manifest):
        return _LAYER_FORMATS.get(layer.media_type, "bare")
    return "compat" if manifest.annotations.get(_VARIANT, "").startswith("compat") else None


def choose_platform(index: Index, what: str) -> Descriptor:
    """The manifest of an index to take: WebAssembly's, preview 1 before preview 2. Raises: NotWasmError."""
    by_platform = {
        (one.platform.get("os", ""), one.platform.get("architecture", "")): one for one in reversed(index.manifests)
    }
    for platform in _PLATFORMS:
        if platform in by_platform:
            return by_platform[platform]
    for (system, architecture), one in by_platform.items():
        if architecture.startswith("wasm") or system.startswith("wasi"):
            return one
    bare = [one for one in index.manifests if not one.platform]
    if len(bare) == 1:  # an artifact in an index of its own; what it is shows when it is read
        return bare[0]
    if not by_platform:
        raise NotWasmError(f"{what} is an empty index", hint="push the artifact again")
    names = ", ".join(sorted("/".join(filter(None, platform)) or "no platform" for platform in by_platform))
    raise NotWasmError(
        f"{what} is a container image for {names}; {_PURPOSE}",
        hint="use an image with the platform wasi/wasm, or push the module with `cinderctl push`",
    )


def image_refusal(what: str, config: Mapping[str, Any], why: str = "") -> NotWasmError:
    """The one line for an ordinary container image."""
    platform = "/".join(str(config.get(name)) for name in ("os", "architecture") if config.get(name))
    return NotWasmError(
        f"{what} is a container image for {platform or 'an unknown platform'}; {_PURPOSE}",
        detail=why,
        hint="push the module itself, for instance with `cinderctl push FILE REF`",
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to push: the blobs by descriptor, the manifest last.

    `layer` is None where the module itself is the layer.
    """

    config: bytes
    config_type: str
    layer: bytes | None
    layer_type: str
    manifest_type: str
    manifest_fields: Mapping[str, Any]
    layer_annotations: Mapping[str, str]

    def manifest(self, config: Descriptor, layer: Descriptor) -> bytes:
        """The manifest's bytes, always the same for the same descriptors."""
        value = {
            "schemaVersion": 2,
            **self.manifest_fields,
            "config": {"mediaType": self.config_type, "digest": config.digest, "size": config.size},
            "layers": [
                {
                    "mediaType": self.layer_type,
                    "digest": layer.digest,
                    "size": layer.size,
                    **({"annotations": dict(self.layer_annotations)} if self.layer_annotations else {}),
                }
            ],
        }
        return _json(value)


def build(
    form: PushFormat,
    info: WasmInfo,
    module: Descriptor,
    *,
    content: bytes | None = None,
    title: str = "",
    created: datetime | None = None,
) -> Recipe:
    """The parts of an artifact around a module. `content` is needed for `docker` only, which wraps it.

    The same module, title and time give the same bytes, so the same digests. `created` is the epoch when not given,
    as reproducible builds have it.
    """
    name = PurePosixPath(title.replace("\\", "/")).name or "module.wasm"
    moment = (created or _EPOCH).astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    if form == "wasm-to-oci":
        # No mediaType in the manifest: Krustlet refuses an OCI manifest that has one, and wasm-to-oci wrote none.
        return Recipe(b"{}", KRUSTLET_CONFIG, None, KRUSTLET_LAYER, OCI_MANIFEST, {}, {_TITLE: name})
    fields = {"mediaType": OCI_MANIFEST}
    if form == "cncf":
        config = _json({"created": moment, **_cncf_platform(info), "layerDigests": [module.digest]})
        return Recipe(config, CNCF_CONFIG, None, CNCF_LAYER, OCI_MANIFEST, fields, {_TITLE: name})
    if content is None:
        raise ValueError("a docker image is built around the module's content")
    tar = _tar(name, content)
    image = {
        "created": moment,
        "architecture": "wasm",
        "os": "wasi",
        "config": {"Entrypoint": [f"/{name}"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256_of(tar)]},
        "history": [{"created": moment, "created_by": "cinderctl push"}],
    }
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    return Recipe(_json(image), OCI_IMAGE_CONFIG, gzip.compress(tar, mtime=0), kind, OCI_MANIFEST, fields, {})


def _cncf_platform(info: WasmInfo) -> dict[str, Any]:
    if info.kind == "module":
        return {"architecture": "wasm", "os": "wasip1"}
    exports, imports = ([item.name for item in items] for items in (info.exports, info.imports))
    return {"architecture": "wasm", "os": "wasip2", "component": {"exports": exports, "imports": imports}}


def _tar(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o755
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
