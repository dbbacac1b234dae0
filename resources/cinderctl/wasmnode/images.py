"""The modules of a node: pulled once, kept by digest, found by reference.

`<root>/modules/<hex>.wasm` holds each module under the digest of its bytes; `<root>/index.json` says which reference
stood for which manifest and module. Containers of any pod share one pull of one reference.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import ensure_dir, read_json, storage_errors, write_json

__all__ = ["Ensured", "Image", "ImageError", "ImageStore", "Pulled", "Puller"]

_PULLS = 4  # at once; more would only share the same line
_LOCAL = "fs/"


class ImageError(CinderError):
    """`reason` is the container's waiting reason: ErrImagePull, ErrImageNeverPull or InvalidImageName."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a puller brought: the module's file with its digest and size, and the manifest's digest."""

    path: Path
    module_digest: str
    manifest_digest: str
    size: int


class Puller(Protocol):
    """Blocking access to registries. `secrets` are pull secrets as the API gives them. Both raise CinderError."""

    def resolve(self, reference: str, secrets: Sequence[Mapping[str, Any]]) -> str:
        """The manifest digest a reference stands for now."""
        ...

    def pull(self, reference: str, dest: Path, secrets: Sequence[Mapping[str, Any]]) -> Pulled: ...

    def repository(self, reference: str) -> str:
        """`registry/repository` of a reference. Raises: CinderError for what is no reference."""
        ...


@dataclass(frozen=True, slots=True)
class Image:
    """`digest` is the module's (`sha256:<hex>`), `image_id` names the manifest, `used` in Unix seconds."""

    reference: str
    digest: str
    image_id: str
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Ensured:
    """An image that is there. `seconds` is how long its pull took, None when it was there already."""

    image: Image
    path: Path
    seconds: float | None


class ImageStore:
    def __init__(
        self,
        root: Path,
        puller: Puller,
        *,
        allow_local: bool,
        on_error: Callable[[Exception], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._modules = ensure_dir(root / "modules")
        self._puller = puller
        self._allow_local = allow_local
        self._on_error = on_error
        self._now = now
        self._images: dict[str, Image] = self._load()
        self._flights: dict[tuple[str, str, str], asyncio.Task[Image]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def images(self) -> list[Image]:
        return sorted(self._images.values(), key=lambda image: (-image.size, image.reference))

    def path_of(self, digest: str) -> Path:
        return self._modules / f"{digest.removeprefix('sha256:')}.wasm"

    async def ensure(
        self, reference: str, policy: str, secrets: Sequence[Mapping[str, Any]], on_pull: Callable[[], None]
    ) -> Ensured:
        """The module of a reference, by its pull policy. `on_pull` is called when a pull begins. Raises: ImageError."""
        began = self._now()
        if reference.startswith(_LOCAL):
            image = await self._local(reference)
            return Ensured(image, self.path_of(image.digest), None)
        known = self._images.get(reference)
        if known is not None and policy != "Always" and self.path_of(known.digest).is_file():
            self._images[reference] = known = replace(known, used=began)
            return Ensured(known, self.path_of(known.digest), None)
        if policy == "Never":
            raise ImageError(
                "ErrImageNeverPull", f'Container image "{reference}" is not present with pull policy of Never'
            )
        on_pull()
        key = (reference, policy, _fingerprint(secrets))
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fetch(reference, secrets), name=f"pull {reference}")
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        image = await asyncio.shield(flight)
        return Ensured(image, self.path_of(image.digest), self._now() - began)

    async def _fetch(self, reference: str, secrets: Sequence[Mapping[str, Any]]) -> Image:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_PULLS, thread_name_prefix="pull")
        loop = asyncio.get_running_loop()
        image = await loop.run_in_executor(self._threads, self._pull, reference, secrets)
        self._images[reference] = image
        await asyncio.to_thread(self._save)
        return image

    def _pull(self, reference: str, secrets: Sequence[Mapping[str, Any]]) -> Image:
        """Blocking. A reference that still stands for what we have costs one question."""
        known = self._images.get(reference)
        try:
            repository = self._puller.repository(reference)
        except CinderError as error:
            raise ImageError(
                "InvalidImageName", f'Failed to apply default image tag "{reference}": {_text(error)}'
            ) from error
        try:
            if known is not None and self.path_of(known.digest).is_file():
                current = self._puller.resolve(reference, secrets)
                if known.image_id == f"{repository}@{current}":
                    return replace(known, used=self._now())
            pulled = self._puller.pull(reference, self._modules / f".{os.urandom(8).hex()}.part", secrets)
            with storage_errors("keep", pulled.path):
                pulled.path.replace(self.path_of(pulled.module_digest))
        except CinderError as error:
            raise ImageError("ErrImagePull", f'failed to pull image "{reference}": {_text(error)}') from error
        image_id = f"{repository}@{pulled.manifest_digest}"
        return Image(reference, pulled.module_digest, image_id, pulled.size, self._now())

    async def _local(self, reference: str) -> Image:
        """`fs/<path>`: a file of this host, where the node's owner allows that (Krustlet's local modules)."""
        if not self._allow_local:
            raise ImageError(
                "ErrImagePull", f'image "{reference}" names a file of the node, which allowLocalModules does not allow'
            )
        return await asyncio.to_thread(self._copy, reference, Path(reference.removeprefix(_LOCAL)))

    def _copy(self, reference: str, source: Path) -> Image:
        part = self._modules / f".{os.urandom(8).hex()}.part"
        try:
            with storage_errors("read module", source):
                shutil.copyfile(source, part)
                part.chmod(0o600)
            with part.open("rb") as file:
                digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            size = part.stat().st_size
            part.replace(self.path_of(digest))
        except CinderError as error:
            part.unlink(missing_ok=True)
            raise ImageError("ErrImagePull", _text(error)) from error
        image = Image(reference, digest, f"{reference}@{digest}", size, self._now())
        self._images[reference] = image
        return image

    def collect(self, in_use: frozenset[str], minimum_age: float) -> int:
        """Drop references and modules nobody uses (`in_use`: references of pods). Returns the bytes freed. Blocking."""
        horizon = self._now() - minimum_age
        for reference, image in list(self._images.items()):
            if reference not in in_use and image.used < horizon:
                del self._images[reference]
        kept = {self.path_of(image.digest).name for image in self._images.values()}
        freed = 0
        for path in self._modules.iterdir():
            stat = path.stat()
            if path.name not in kept and stat.st_mtime < horizon:
                path.unlink(missing_ok=True)
                freed += stat.st_size
        self._save()
        return freed

    def _load(self) -> dict[str, Image]:
        try:
            raw = read_json(self._root / "index.json") or {}
            images = {str(ref): Image(**value) for ref, value in raw.items()}
        except (CinderError, TypeError, AttributeError) as error:
            self._on_error(error)  # only a cache: what is missing is pulled again
            return {}
        return {ref: image for ref, image in images.items() if self.path_of(image.digest).is_file()}

    def _save(self) -> None:
        try:
            write_json(self._root / "index.json", {ref: asdict(image) for ref, image in list(self._images.items())})
        except CinderError as error:
            self._on_error(error)


def _fingerprint(secrets: Sequence[Mapping[str, Any]]) -> str:
    """Tells pulls with different credentials apart, so that nobody gets an image by another's secret."""
    marks = sorted(f"{s['metadata'].get('uid', '')}/{s['metadata'].get('resourceVersion', '')}" for s in secrets)
    return " ".join(marks)


def _text(error: CinderError) -> str:
    """Summary and detail in one line, for a status message."""
    first = error.diagnostics[0]
    return f"{first.summary}: {first.detail}" if first.detail else first.summary
