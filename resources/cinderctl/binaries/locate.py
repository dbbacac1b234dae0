"""Finding what is already there: the user's own directory, then the cache. Reads only; cheap enough for every plan."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cinderctl.binaries.catalog import Binary, binaries_named, version_of
from cinderctl.binaries.sources import Sources
from cinderctl.binaries.stamps import State, check
from cinderctl.host.files import CorruptFileError, ensure_dir, read_json, storage_errors, write_json

__all__ = ["Located", "find", "locate"]

_PROBE_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Located:
    """One binary as found. `version` is the wanted one, `reported` what a directory's binary tells. `size` in bytes."""

    name: str
    project: str
    version: str
    state: State
    path: Path
    origin: str = ""
    size: int = 0
    reported: str = ""
    detail: str = ""


def find(names: Iterable[str], sources: Sources, *, kubernetes_version: str) -> dict[str, Path]:
    """The binaries that are there and usable, by name; the others are missing from the result. Fetches nothing.

    Raises: UsageError for unknown names and versions, StorageError.
    """
    found = (locate(binary, sources, version_of(binary, kubernetes_version)) for binary in binaries_named(names))
    return {item.name: item.path for item in found if item.state is State.READY}


def locate(binary: Binary, sources: Sources, version: str, *, verify: bool = False) -> Located:
    """Where one binary is: the user's directory when it has one of that name (even an unusable one), else the cache.

    `verify` hashes the cached file anew. Raises: StorageError.
    """
    if sources.directory:
        path = sources.directory / binary.name
        with storage_errors("read", path):
            if path.exists():
                return _in_directory(binary, sources, version, path)
    path = sources.cache_directory(binary.project, version) / binary.name
    checked = check(path, verify=verify)
    stamp = checked.stamp
    return Located(
        binary.name,
        binary.project.name,
        version,
        checked.state,
        path,
        origin=stamp.origin if stamp else "",
        size=stamp.size if stamp and checked.state is State.READY else 0,
        reported=stamp.version if stamp else "",
        detail=checked.detail,
    )


def _in_directory(binary: Binary, sources: Sources, version: str, path: Path) -> Located:
    reported, problem = _reported_version(binary, sources, path)
    state = State.READY
    if problem:
        state = State.BROKEN
    elif reported.removeprefix("v") != version.removeprefix("v"):
        # Kubernetes' version is the spec's to say; of the others only the release line matters to us.
        same_line = reported.removeprefix("v").split(".")[:2] == version.removeprefix("v").split(".")[:2]
        if binary.project.follows_spec or not same_line:
            state = State.WRONG_VERSION
            problem = f"it reports {reported}, wanted is {version}"
    with storage_errors("read", path):
        size = path.stat().st_size
    return Located(
        binary.name,
        binary.project.name,
        version,
        state,
        path,
        origin="your directory",
        size=size,
        reported=reported,
        detail=problem,
    )


def _reported_version(binary: Binary, sources: Sources, path: Path) -> tuple[str, str]:
    """The version a binary tells, and why it tells none. Remembered in the cache until the file changes.

    Raises: StorageError.
    """
    with storage_errors("read", path):
        status = path.stat()
    identity = [str(path), status.st_size, status.st_mtime_ns, status.st_ino]
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:24]
    memory = sources.cache / "versions" / f"{digest}.json"
    try:
        known = read_json(memory)
    except CorruptFileError:
        known = None
    if isinstance(known, dict) and known.get("file") == identity:
        return str(known.get("version", "")), ""
    version, problem = _ask_version(binary, path)
    if version:
        ensure_dir(memory.parent)
        write_json(memory, {"file": identity, "version": version}, durable=False)
    return version, problem


def _ask_version(binary: Binary, path: Path) -> tuple[str, str]:
    if not os.access(path, os.X_OK) or not path.is_file():
        return "", "it is not an executable file"
    try:
        done = subprocess.run(
            [str(path), *binary.version_arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_TIMEOUT,
            check=False,
            env={"PATH": os.defpath, "HOME": os.devnull},  # kubectl must not read the user's kubeconfig for this
        )
    except OSError as error:
        return "", f"it does not run here: {error.strerror or error}"
    except subprocess.TimeoutExpired:
        return "", f"it did not tell its version within {_PROBE_TIMEOUT:.0f} s"
    match = re.search(r"\bv?\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+)?", done.stdout + done.stderr)
    if done.returncode != 0 or match is None:
        return "", f"it did not tell its version (exit {done.returncode})"
    return match.group(), ""
