"""WebAssembly modules in registries: push one, pull one whatever its format, look into one.

What a file is, its content decides: magic and version words. Media types only say where to look. Everything that is
no module is refused in one line that says what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cinderctl.core.digest import sha256_of
from cinderctl.host.files import storage_errors
from cinderctl.oci.blob import PartFile, Progress, digest_of_file
from cinderctl.oci.client import RegistryClient
from cinderctl.oci.errors import NotWasmError, RegistryProtocolError
from cinderctl.oci.formats import Format, PushFormat, Recipe, build, choose_platform, format_of, wasm_layers
from cinderctl.oci.image import Source, module_from_image
from cinderctl.oci.manifest import Descriptor, Manifest, ManifestBytes, parse_manifest
from cinderctl.oci.reference import Reference
from cinderctl.oci.wasm import Export, Import, Kind, WasmInfo, describe, describe_file, looks_like, sniff

__all__ = [
    "DEFAULT_MAX_BYTES",
    "Inspection",
    "PulledModule",
    "Pushed",
    "artifact_digest",
    "inspect",
    "pull_module",
    "push_module",
]

DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024  # of a module; componentize-py makes 18 MB, interpreters some 50
_MAX_DEPTH: Final = 3  # of indexes in indexes


@dataclass(frozen=True, slots=True)
class PulledModule:
    """A module in a file. `manifest_digest` is what the reference stands for (of the index, where it names one), so it
    compares with `RegistryClient.resolve`; `module_digest` is of the file's content; `size` in bytes."""

    path: Path
    module_digest: str
    manifest_digest: str
    format: Format
    size: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Pushed:
    """`digest` and `size` of the manifest; `reference` pinned to the digest."""

    reference: Reference
    digest: str
    size: int
    module_digest: str
    module_size: int
    kind: Kind
    format: PushFormat


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an artifact is and needs. `digest` is of the manifest the reference stands for; `layers` are media types."""

    reference: Reference
    digest: str
    format: Format
    media_type: str
    config_media_type: str
    layers: tuple[str, ...]
    annotations: Mapping[str, str]
    module_digest: str
    size: int
    kind: Kind
    imports: tuple[Import, ...]
    exports: tuple[Export, ...]
    custom: tuple[str, ...]


def push_module(
    client: RegistryClient,
    ref: Reference,
    wasm: bytes | Path,
    *,
    format: PushFormat = "cncf",  # noqa: A002 - the word users type
    title: str = "",
    created: datetime | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Push a module or component under the reference's tag. `title` is its file name, by default the path's.

    The same content, title and time always give the same digest. Raises: NotWasmError before anything is sent,
    OciError's of the client, StorageError.
    """
    info, module, recipe = _recipe(wasm, format, title, created)
    config = client.push_blob(ref, recipe.config, media_type=recipe.config_type)
    if recipe.layer is None:
        layer = client.push_blob(ref, wasm, media_type=recipe.layer_type, progress=progress)
        if layer.digest != module.digest:
            raise NotWasmError("the module changed while it was pushed", hint="push it again")
    else:
        layer = client.push_blob(ref, recipe.layer, media_type=recipe.layer_type, progress=progress)
    data = recipe.manifest(config, layer)
    digest = client.push_manifest(ref, data, recipe.manifest_type)
    return Pushed(ref.at(digest), digest, len(data), module.digest, module.size, info.kind, format)


def artifact_digest(
    wasm: bytes | Path,
    *,
    format: PushFormat = "cncf",  # noqa: A002
    title: str = "",
    created: datetime | None = None,
) -> str:
    """The digest `push_module` would give, without a registry. Raises: NotWasmError, StorageError."""
    _, module, recipe = _recipe(wasm, format, title, created)
    config = _descriptor(recipe.config)
    layer = module if recipe.layer is None else _descriptor(recipe.layer)
    return sha256_of(recipe.manifest(config, layer))


def pull_module(
    client: RegistryClient,
    ref: Reference,
    dest: Path,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    progress: Progress | None = None,
    mode: int = 0o600,
) -> PulledModule:
    """Bring the module of an artifact into a file, which appears whole and verified, or not at all.

    Raises: NotWasmError (with what it is instead), TooLargeError, OciError's of the client, StorageError.
    """
    top, manifest = _manifest(client, ref)
    return _pull(Source(client, ref, manifest, max_bytes, progress), top, dest, mode)


def inspect(
    client: RegistryClient,
    ref: Reference,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    progress: Progress | None = None,
    directory: Path | None = None,
) -> Inspection:
    """Look into an artifact; the module passes through a temporary file in `directory`. Raises as `pull_module`."""
    top, manifest = _manifest(client, ref)
    with storage_errors("use", directory or Path("temporary directory")):
        scratch = TemporaryDirectory(prefix="cinderctl-", dir=directory)
    with scratch as folder:
        source = Source(client, ref, manifest, max_bytes, progress)
        pulled = _pull(source, top, Path(folder) / "module.wasm", 0o600)
        info = describe_file(pulled.path)
    return Inspection(
        reference=ref,
        digest=top.digest,
        format=pulled.format,
        media_type=manifest.media_type,
        config_media_type=manifest.config.media_type,
        layers=tuple(layer.media_type for layer in manifest.layers),
        annotations=dict(manifest.annotations),
        module_digest=pulled.module_digest,
        size=pulled.size,
        kind=info.kind,
        imports=info.imports,
        exports=info.exports,
        custom=info.custom,
    )


def _recipe(
    wasm: bytes | Path, form: PushFormat, title: str, created: datetime | None
) -> tuple[WasmInfo, Descriptor, Recipe]:
    content: bytes | None = None
    if isinstance(wasm, bytes):
        info, module, content = describe(wasm), _descriptor(wasm), wasm
    else:
        info = describe_file(wasm)
        module = Descriptor("", *digest_of_file(wasm))
        if form == "docker":
            with storage_errors("read", wasm):
                content = wasm.read_bytes()
    name = title or (wasm.name if isinstance(wasm, Path) else "module.wasm")
    return info, module, build(form, info, module, content=content, title=name, created=created)


def _descriptor(data: bytes) -> Descriptor:
    return Descriptor("", sha256_of(data), len(data))


def _manifest(client: RegistryClient, ref: Reference) -> tuple[ManifestBytes, Manifest]:
    """What the reference names, and the image or artifact manifest it leads to."""
    top = here = client.manifest(ref)
    for _ in range(_MAX_DEPTH):
        found = parse_manifest(here.data, here.media_type, str(ref))
        if isinstance(found, Manifest):
            return top, found
        here = client.manifest(ref.at(choose_platform(found, str(ref)).digest))
    raise RegistryProtocolError(f"{ref} is an index of indexes without end")


def _pull(source: Source, top: ManifestBytes, dest: Path, mode: int) -> PulledModule:
    manifest, ref = source.manifest, source.ref
    form, modules = format_of(manifest), wasm_layers(manifest)
    with PartFile(dest, mode) as file:
        if not modules:
            digest, size = module_from_image(source, form, file)
            form = form or "docker"
        elif form == "spin" and len(modules) > 1:
            raise NotWasmError(
                f"{ref} is a Spin application of {len(modules)} components; a container runs one module",
                hint="push each component by itself, and give each a container",
            )
        else:
            source.fetch(modules[0], file, "the module")
            digest, size = modules[0].digest, modules[0].size
        head = file.content.read(64)
        kind = sniff(head)
        if kind is None:
            raise NotWasmError(f"{ref} holds no WebAssembly module: its content seems to be {looks_like(head)}")
        file.commit()
    return PulledModule(dest, digest, top.digest, form or "bare", size, kind)
