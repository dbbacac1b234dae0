"""A module inside an ordinary image: `--platform wasi/wasm` of Docker, and the compat form of crun and solo.io."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from cinderctl.oci.blob import BlobFile, PartFile, Progress
from cinderctl.oci.client import RegistryClient
from cinderctl.oci.errors import NotWasmError, RegistryProtocolError, TooLargeError
from cinderctl.oci.formats import IMAGE_CONFIGS, Format, image_refusal, is_tar
from cinderctl.oci.layer import extract, find_wasm, normalised
from cinderctl.oci.manifest import Descriptor, Manifest
from cinderctl.oci.reference import Reference

__all__ = ["Source", "module_from_image"]

_MAX_LAYERS: Final = 128


@dataclass(frozen=True, slots=True)
class Source:
    """An artifact about to be read, and the bounds. `max_bytes` holds for the module and for each packed layer."""

    client: RegistryClient
    ref: Reference
    manifest: Manifest
    max_bytes: int
    progress: Progress | None = None

    def fetch(self, descriptor: Descriptor, file: PartFile, what: str) -> None:
        """Raises: TooLargeError before a byte is asked for."""
        if descriptor.size > self.max_bytes:
            raise TooLargeError(
                f"{what} of {self.ref} has {descriptor.size} bytes, over the limit of {self.max_bytes}",
                hint="raise the limit, or make it smaller",
            )
        self.client.blob_into(self.ref, BlobFile(file, descriptor), self.progress)


def module_from_image(source: Source, form: Format | None, out: PartFile) -> tuple[str, int]:
    """Write the module of an image's file system out.

    Returns its digest and size. Raises: NotWasmError, TooLargeError.
    """
    ref, manifest = source.ref, source.manifest
    if manifest.config.media_type not in IMAGE_CONFIGS:
        kind = manifest.artifact_type or manifest.config.media_type or "no type"
        raise NotWasmError(
            f"{ref} is an artifact of another kind ({kind}); wasm nodes run WebAssembly modules",
            hint="push the module with `cinderctl push FILE REF`",
        )
    config = _image_config(source)
    entry = _entry(config)
    if not _may_hold_wasm(manifest, form, config, entry):
        raise image_refusal(str(ref), config)
    odd = [layer.media_type for layer in manifest.layers if not is_tar(layer)]
    if odd:
        raise image_refusal(str(ref), config, f"its layers are of a kind that cannot be read here: {odd[0]}")
    if len(manifest.layers) > _MAX_LAYERS:
        raise TooLargeError(f"{ref} has {len(manifest.layers)} layers, over {_MAX_LAYERS}")
    return _search(source, config, entry, out)


def _search(source: Source, config: Mapping[str, Any], entry: str, out: PartFile) -> tuple[str, int]:
    """The Entrypoint's file from the uppermost layer that has it; without an Entrypoint, the only `*.wasm`."""
    unpacked, what, seen = 4 * source.max_bytes, str(source.ref), dict[str, PartFile]()
    sink = _Hashed(out.write, source.max_bytes, what)
    with ExitStack() as stack:
        for number, layer in enumerate(reversed(source.manifest.layers)):
            part = stack.enter_context(PartFile(out.beside(f"layer{number}")))
            source.fetch(layer, part, "a layer")
            if entry:
                if extract(part.content, entry, unpacked, what, sink.write):
                    return sink.digest, sink.size
                continue
            for found in find_wasm(part.content, unpacked, what):
                seen.setdefault(found.name, part)
        if entry:
            raise image_refusal(what, config, f"its Entrypoint names `{entry}`, which is in none of its layers")
        if len(seen) != 1:
            names = ", ".join(sorted(seen)[:5])
            why = f"it has {len(seen)} modules ({names}) and no Entrypoint to choose by" if seen else "it has no *.wasm"
            raise image_refusal(what, config, why)
        ((name, part),) = seen.items()
        extract(part.content, name, unpacked, what, sink.write)
        return sink.digest, sink.size


class _Hashed:
    """Passes a module's bytes on, bounded, and knows their digest."""

    def __init__(self, write: Callable[[bytes], object], limit: int, what: str) -> None:
        self._write = write
        self._limit = limit
        self._what = what
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self._limit:
            raise TooLargeError(f"the module of {self._what} has more than {self._limit} bytes")
        self._hash.update(piece)
        self._write(piece)


def _image_config(source: Source) -> Mapping[str, Any]:
    ref = source.ref
    try:
        config = json.loads(source.client.blob_bytes(ref, source.manifest.config))
    except (ValueError, RecursionError) as error:
        raise RegistryProtocolError(f"the config of {ref} is not JSON") from error
    if not isinstance(config, dict):
        raise RegistryProtocolError(f"the config of {ref} is no JSON object")
    return config


def _entry(config: Mapping[str, Any]) -> str:
    """The file an image starts, from the root: the first word of its command that ends in .wasm, else the first."""
    inner = config.get("config")
    inner = inner if isinstance(inner, dict) else {}
    words = [word for name in ("Entrypoint", "Cmd") for word in inner.get(name) or () if isinstance(word, str)]
    if not words:
        return ""
    chosen = next((word for word in words if word.endswith(".wasm")), words[0])
    folder = inner.get("WorkingDir")
    return normalised(posixpath.join(folder if isinstance(folder, str) else "/", chosen))


def _may_hold_wasm(manifest: Manifest, form: Format | None, config: Mapping[str, Any], entry: str) -> bool:
    """Whether an image is worth opening: by its platform, annotation or Entrypoint; or it is one layer that runs
    nothing, which is how tools without a word for WebAssembly pack a module."""
    system, architecture = str(config.get("os", "")), str(config.get("architecture", ""))
    if form == "compat" or architecture.startswith("wasm") or system.startswith("wasi"):
        return True
    return entry.endswith(".wasm") or (not entry and len(manifest.layers) == 1)
