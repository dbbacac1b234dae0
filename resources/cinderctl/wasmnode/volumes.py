"""The volumes of a pod: made before its containers start, kept current while they run."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import ensure_dir, storage_errors
from cinderctl.wasmnode.config import NodeConfig
from cinderctl.wasmnode.env import ContainerConfigError, PodFacts, field_value, resource_value
from cinderctl.wasmnode.objects import Objects
from cinderctl.wasmnode.payload import PayloadFile, write_payload
from cinderctl.wasmnode.podspec import Pod, seconds_of

__all__ = ["Volume", "VolumeError", "Volumes"]

_DEFAULT_MODE = 0o644
_TOKEN_SECONDS = 3600
_TOKEN_SPENT = 0.8  # of its life; then a token is renewed
_SOURCES = (
    "configMap",
    "secret",
    "projected",
    "downwardAPI",
    "emptyDir",
    "hostPath",
    "persistentVolumeClaim",
    "ephemeral",
)

Files = dict[str, PayloadFile]


class VolumeError(CinderError):
    """A volume cannot be made. `volume` names it; the text is what `kubectl describe` shows."""

    def __init__(self, volume: str, message: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {message}')
        self.volume = volume


@dataclass(frozen=True, slots=True)
class Volume:
    """`path` on the host. `ours`: only the agent writes there, so links are trusted. `is_file`: a hostPath file."""

    name: str
    path: Path
    read_only: bool = False
    ours: bool = False
    is_file: bool = False


@dataclass(slots=True)
class _Token:
    text: bytes
    renew_at: float


@dataclass(slots=True)
class Volumes:
    """Makes and refreshes the volumes of one pod below `directory`."""

    pod: Pod
    directory: Path
    config: NodeConfig
    objects: Objects
    facts: PodFacts
    now: Callable[[], float] = time.time
    _tokens: dict[tuple[str, str], _Token] = field(default_factory=dict)
    _written: dict[str, Files] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether any volume follows the API while the pod runs."""
        kinds = ("configMap", "secret", "projected", "downwardAPI")
        return any(kind in volume for volume in self.pod.spec.get("volumes") or () for kind in kinds)

    async def set_up(self) -> dict[str, Volume]:
        """All volumes by name; safe to repeat. Raises: VolumeError, KubeError."""
        sources = [(str(v["name"]), v) for v in self.pod.spec.get("volumes") or ()]
        payloads, directories = await asyncio.gather(
            asyncio.gather(*(self._payload(name, v) for name, v in sources)),
            asyncio.gather(*(self._claimed(name, v) for name, v in sources)),
        )
        return await asyncio.to_thread(self._make, sources, payloads, directories)

    async def refresh(self) -> bool:
        """Bring ConfigMaps, Secrets, tokens and downward API files up to date. Returns whether any file changed.

        Raises: VolumeError, KubeError.
        """
        sources = [(str(v["name"]), v) for v in self.pod.spec.get("volumes") or ()]
        payloads = await asyncio.gather(*(self._payload(name, v) for name, v in sources))
        return await asyncio.to_thread(self._rewrite, [n for n, _ in sources], payloads)

    def _rewrite(self, names: list[str], payloads: list[Files | None]) -> bool:
        changed = False
        for name, files in zip(names, payloads, strict=True):
            if files is not None and files != self._written.get(name):
                changed = write_payload(self._place(name), files) or changed
                self._written[name] = files
        return changed

    def _place(self, name: str) -> Path:
        return self.directory / "volumes" / name

    def _make(
        self,
        sources: list[tuple[str, Mapping[str, Any]]],
        payloads: list[Files | None],
        claimed: list[tuple[Path, bool] | None],
    ) -> dict[str, Volume]:
        made: dict[str, Volume] = {}
        if sources:
            ensure_dir(self.directory / "volumes")
        for (name, source), files, claim in zip(sources, payloads, claimed, strict=True):
            place = self._place(name)
            if files is not None:
                write_payload(place, files)
                self._written[name] = files
                made[name] = Volume(name, place, read_only=True, ours=True)
            elif claim is not None:
                path, read_only = claim
                if not path.is_dir():
                    raise VolumeError(name, f"the persistent volume's directory {path} does not exist on this node")
                made[name] = Volume(name, path, read_only=read_only)
            elif "emptyDir" in source:
                made[name] = Volume(name, ensure_dir(place, 0o777))
            else:
                made[name] = _host_path(name, source["hostPath"], self.config.host_path_prefixes)
        return made

    async def _claimed(self, name: str, source: Mapping[str, Any]) -> tuple[Path, bool] | None:
        """Directory and read-only flag behind a persistent volume claim; None for other sources."""
        if source.get("persistentVolumeClaim"):
            claim_name = str(source["persistentVolumeClaim"]["claimName"])
            read_only = bool(source["persistentVolumeClaim"].get("readOnly"))
        elif source.get("ephemeral"):
            claim_name, read_only = f"{self.pod.name}-{name}", False
        else:
            return None
        claim = await self.objects.claim(self.pod.namespace, claim_name)
        if claim is None:
            raise VolumeError(name, f'persistentvolumeclaim "{claim_name}" not found')
        bound = (claim.get("spec") or {}).get("volumeName")
        if not bound or (claim.get("status") or {}).get("phase") != "Bound":
            raise VolumeError(name, f'persistentvolumeclaim "{claim_name}" is not bound yet')
        volume = await self.objects.volume(str(bound))
        spec: Mapping[str, Any] = (volume or {}).get("spec") or {}
        path = (spec.get("local") or spec.get("hostPath") or {}).get("path")
        if not path:
            raise VolumeError(name, f'persistent volume "{bound}" is no directory of a node (local or hostPath)')
        return Path(str(path)), read_only

    async def _payload(self, name: str, source: Mapping[str, Any]) -> Files | None:
        """The files of a volume the agent writes; None for other sources."""
        try:
            if "configMap" in source:
                spec = source["configMap"]
                return await self._config_map(spec, str(spec.get("name", "")), _mode(spec))
            if "secret" in source:
                spec = source["secret"]
                return await self._secret(spec, str(spec.get("secretName", "")), _mode(spec))
            if "downwardAPI" in source:
                return self._downward(source["downwardAPI"].get("items") or (), _mode(source["downwardAPI"]))
            if "projected" in source:
                return await self._projected(name, source["projected"])
        except ContainerConfigError as error:
            raise VolumeError(name, str(error)) from error
        if not any(kind in source for kind in _SOURCES):
            kinds = ", ".join(sorted(set(source) - {"name"})) or "of no kind"
            raise VolumeError(name, f"volumes of kind {kinds} are not supported on a WebAssembly node")
        return None

    async def _projected(self, name: str, spec: Mapping[str, Any]) -> Files:
        mode = _mode(spec)
        jobs: list[Awaitable[Files]] = []
        for number, part in enumerate(spec.get("sources") or ()):
            if part.get("configMap"):
                jobs.append(self._config_map(part["configMap"], str(part["configMap"].get("name", "")), mode))
            elif part.get("secret"):
                jobs.append(self._secret(part["secret"], str(part["secret"].get("name", "")), mode))
            elif part.get("serviceAccountToken"):
                jobs.append(self._token(f"{name}/{number}", part["serviceAccountToken"], mode))
            elif part.get("downwardAPI"):
                jobs.append(_ready(self._downward(part["downwardAPI"].get("items") or (), mode)))
            else:
                raise VolumeError(name, f"projected source of kind {', '.join(part)} is not supported")
        files: Files = {}
        for piece in await asyncio.gather(*jobs):
            files.update(piece)
        return files

    async def _config_map(self, spec: Mapping[str, Any], name: str, mode: int) -> Files:
        found = await self.objects.config_map(self.pod.namespace, name)
        if found is None:
            return _absent(spec, f'configmap "{name}" not found')
        data = {k: str(v).encode() for k, v in (found.get("data") or {}).items()}
        data |= {k: b64decode(v) for k, v in (found.get("binaryData") or {}).items()}
        return _chosen(data, spec, mode, f'configmap "{name}"')

    async def _secret(self, spec: Mapping[str, Any], name: str, mode: int) -> Files:
        found = await self.objects.secret(self.pod.namespace, name)
        if found is None:
            return _absent(spec, f'secret "{name}" not found')
        data = {k: b64decode(v) for k, v in (found.get("data") or {}).items()}
        return _chosen(data, spec, mode, f'secret "{name}"')

    def _downward(self, items: Any, mode: int) -> Files:
        files: Files = {}
        for item in items:
            if item.get("fieldRef"):
                text = field_value(str(item["fieldRef"]["fieldPath"]), self.pod, self.facts)
            else:
                ref = item.get("resourceFieldRef") or {}
                container = self.pod.container(str(ref.get("containerName", "")))
                if container is None:
                    raise ContainerConfigError(f"resourceFieldRef names no container of the pod: {item.get('path')}")
                text = resource_value(ref, container, self.facts)
            files[str(item["path"])] = PayloadFile(text.encode(), _mode(item, "mode", mode))
        return files

    async def _token(self, key: str, spec: Mapping[str, Any], mode: int) -> Files:
        audience = str(spec.get("audience") or "")
        known = self._tokens.get((key, audience))
        if known is None or self.now() >= known.renew_at:
            seconds = int(spec.get("expirationSeconds") or _TOKEN_SECONDS)
            answer = await self.objects.token(self.pod, audience, seconds)
            expires = seconds_of(answer.get("expirationTimestamp")) or self.now() + seconds
            life = max(0.0, expires - self.now())
            known = _Token(str(answer["token"]).encode(), self.now() + _TOKEN_SPENT * min(life, seconds))
            self._tokens[key, audience] = known
        return {str(spec.get("path") or "token"): PayloadFile(known.text, mode)}


async def _ready(files: Files) -> Files:
    return files


def _mode(spec: Mapping[str, Any], name: str = "defaultMode", default: int = _DEFAULT_MODE) -> int:
    given = spec.get(name)
    return default if given is None else int(given) & 0o777


def _absent(spec: Mapping[str, Any], message: str) -> Files:
    if spec.get("optional"):
        return {}
    raise ContainerConfigError(message)


def _chosen(data: Mapping[str, bytes], spec: Mapping[str, Any], mode: int, what: str) -> Files:
    """All keys, or those of `items` under their paths."""
    items = spec.get("items") or ()
    if not items:
        return {key: PayloadFile(value, mode) for key, value in data.items()}
    files: Files = {}
    for item in items:
        key = str(item["key"])
        if key in data:
            files[str(item["path"])] = PayloadFile(data[key], _mode(item, "mode", mode))
        elif not spec.get("optional"):
            raise ContainerConfigError(f"{what} references non-existent key: {key}")
    return files


def _host_path(name: str, spec: Mapping[str, Any], prefixes: tuple[str, ...]) -> Volume:
    """Raises: VolumeError when what stands there is not of the wanted type, or lies outside the allowed prefixes."""
    path, wanted = Path(str(spec["path"])), str(spec.get("type") or "")
    if prefixes:
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(os.path.realpath(prefix)) for prefix in prefixes):
            raise VolumeError(name, f"hostPath {path} is outside of what this node allows: {', '.join(prefixes)}")
        path = real
    with storage_errors("use hostPath", path):
        if wanted == "DirectoryOrCreate":
            path.mkdir(0o755, parents=True, exist_ok=True)
        elif wanted == "FileOrCreate" and not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise VolumeError(name, f"hostPath {path} does not exist") from None
    checks = {
        "Directory": stat.S_ISDIR,
        "DirectoryOrCreate": stat.S_ISDIR,
        "File": stat.S_ISREG,
        "FileOrCreate": stat.S_ISREG,
        "Socket": stat.S_ISSOCK,
        "CharDevice": stat.S_ISCHR,
        "BlockDevice": stat.S_ISBLK,
    }
    if wanted and not checks[wanted](mode):
        raise VolumeError(
            name, f"hostPath type check failed: {path} is not a {wanted.removesuffix('OrCreate').lower()}"
        )
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise VolumeError(
            name, f"hostPath {path} is neither a file nor a directory, which is all a WASI guest can open"
        )
    return Volume(name, path, is_file=stat.S_ISREG(mode))
