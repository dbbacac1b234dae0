"""Files the agent writes into a pod's ConfigMap, Secret, projected and downward API volumes.

The kubelet's layout, so that a change is one step for a reader: the files lie in a fresh directory, `..data` is a link
to it that is renamed over, and each name at the top is a link through `..data`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import ensure_dir, remove_tree, storage_errors

__all__ = ["PayloadFile", "check_relative", "write_payload"]

_DATA = "..data"


@dataclass(frozen=True, slots=True)
class PayloadFile:
    content: bytes
    mode: int = 0o644


def check_relative(path: str) -> PurePosixPath:
    """A path that stays inside its volume. Raises: CinderError."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\0" in path or str(pure) == ".":
        raise CinderError(f"path {path!r} leaves its volume")
    return pure


def write_payload(volume: Path, files: Mapping[str, PayloadFile]) -> bool:
    """Make the volume hold exactly `files` (relative path → file). Returns whether anything changed. Blocking.

    Raises: StorageError; CinderError for a path that leaves the volume.
    """
    ensure_dir(volume, 0o755)
    current = _current(volume)
    if current is not None and _holds(volume / current, files):
        return False
    fresh = ensure_dir(volume / f"..{secrets.token_hex(8)}", 0o755)
    for name, file in files.items():
        path = fresh / check_relative(name)
        with storage_errors("write", path):
            path.parent.mkdir(0o755, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, file.mode)
            with os.fdopen(descriptor, "wb") as stream:
                os.fchmod(descriptor, file.mode)
                stream.write(file.content)
    with storage_errors("write", volume):
        _relink(volume / _DATA, fresh.name)
        wanted = {check_relative(name).parts[0] for name in files}
        for name in wanted:
            if not (volume / name).is_symlink():
                (volume / name).symlink_to(f"{_DATA}/{name}")
        for entry in list(volume.iterdir()):
            if not entry.name.startswith("..") and entry.name not in wanted:
                entry.unlink()
    if current is not None:
        remove_tree(volume / current, below=volume)
    return True


def _current(volume: Path) -> str | None:
    try:
        target = (volume / _DATA).readlink()
    except OSError:
        return None
    return target.name if target.name == str(target) and target.name.startswith("..") else None


def _holds(directory: Path, files: Mapping[str, PayloadFile]) -> bool:
    """Whether a directory of ours (nobody else can write there) holds exactly these files."""
    there = {str(p.relative_to(directory)): p for p in directory.rglob("*") if p.is_file()}
    wanted = {str(check_relative(name)): file for name, file in files.items()}
    return there.keys() == wanted.keys() and all(
        wanted[name].mode & 0o400
        and path.stat().st_mode & 0o7777 == wanted[name].mode
        and path.read_bytes() == wanted[name].content
        for name, path in there.items()
    )


def _relink(link: Path, target: str) -> None:
    temporary = link.with_name(f"..{secrets.token_hex(8)}.tmp")
    temporary.symlink_to(target)
    temporary.replace(link)
