"""The stamp beside each cached file: what it was when it arrived, so that looking again costs two system calls.

`<name>.json` holds sha256, size, mtime and where the file came from. A file whose size and mtime are as stamped is
taken for whole; anything else is hashed. A file without a stamp is never believed: nothing tells that all of it came.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from cinderctl.host.files import CorruptFileError, StorageError, read_json, storage_errors, write_json

__all__ = ["Checked", "Stamp", "State", "check", "file_sha256", "install", "read_stamp"]


class State(StrEnum):
    READY = "ready"
    ABSENT = "absent"
    CORRUPT = "corrupt"
    WRONG_VERSION = "wrong version"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Stamp:
    """`mtime` in nanoseconds, `size` in bytes. `origin` is for people: a URL, or module and version."""

    sha256: str
    size: int
    mtime: int
    version: str
    origin: str


@dataclass(frozen=True, slots=True)
class Checked:
    """`detail` says why a file is not ready."""

    state: State
    stamp: Stamp | None = None
    detail: str = ""


def file_sha256(path: Path) -> str:
    """Hex digest. Raises: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def read_stamp(path: Path) -> Stamp | None:
    """The stamp of a cached file; None when there is none that can be read (the file is then not believed)."""
    try:
        value = read_json(_stamp_path(path))
        return Stamp(**value) if isinstance(value, dict) else None
    except (CorruptFileError, TypeError):
        return None


def check(path: Path, *, verify: bool = False) -> Checked:
    """Is the cached file there and whole? `verify` hashes even when size and mtime are as stamped.

    Raises: StorageError when the cache cannot be read.
    """
    with storage_errors("read", path):
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return Checked(State.ABSENT)
    stamp = read_stamp(path)
    if stamp is None:
        return Checked(State.CORRUPT, detail="it has no stamp: nothing tells that it is whole")
    if status.st_size != stamp.size:
        return Checked(State.CORRUPT, stamp, f"it has {status.st_size} bytes instead of {stamp.size}")
    touched = status.st_mtime_ns != stamp.mtime
    if touched or verify:
        with storage_errors("read", path):
            if file_sha256(path) != stamp.sha256:
                return Checked(State.CORRUPT, stamp, "its content is not what arrived (SHA-256 differs)")
    if touched:
        stamp = replace(stamp, mtime=status.st_mtime_ns)
        with contextlib.suppress(
            StorageError
        ):  # a cache that we may only read is as good; it is hashed again next time
            write_json(_stamp_path(path), asdict(stamp))
    if not os.access(path, os.X_OK):
        return Checked(State.BROKEN, stamp, "it is not executable")
    return Checked(State.READY, stamp)


def install(arrived: Path, path: Path, *, version: str, origin: str) -> Stamp:
    """Move a complete file of the same directory to its name, with its stamp.

    The stamp goes first: a crash between the two leaves a stamp without its file, never a file that looks whole.
    Raises: StorageError.
    """
    with storage_errors("write", path):
        arrived.chmod(0o700)
        with arrived.open("rb") as file:
            os.fsync(file.fileno())
        status = arrived.stat()
        stamp = Stamp(file_sha256(arrived), status.st_size, status.st_mtime_ns, version, origin)
        write_json(_stamp_path(path), asdict(stamp))
        arrived.replace(path)
    return stamp
