"""Files that are either there whole or not at all, for the user's eyes only, and errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError

__all__ = [
    "CorruptFileError",
    "StorageError",
    "ensure_dir",
    "read_bytes",
    "read_json",
    "remove_file",
    "remove_tree",
    "storage_errors",
    "tail",
    "write_atomic",
    "write_json",
]

_HINTS = {
    errno.ENOSPC: "free some space on this file system; nothing was changed",
    errno.EDQUOT: "your disk quota is used up; free some space; nothing was changed",
    errno.EROFS: "the file system is read-only; set XDG_STATE_HOME and XDG_CACHE_HOME to a place that can be written",
    errno.EACCES: "check the owner and the permissions of this path",
    errno.EPERM: "check the owner and the permissions of this path",
    errno.ENAMETOOLONG: "use a shorter name or a shorter XDG_STATE_HOME",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class StorageError(CinderError):
    """The file system said no. `errno` is its reason."""

    def __init__(self, action: str, path: Path, error: OSError) -> None:
        self.errno = error.errno or 0
        super().__init__(f"cannot {action} {path}: {error.strerror or error}", hint=_HINTS.get(self.errno, ""))


class CorruptFileError(CinderError):
    """A file of ours holds what we did not write."""

    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        super().__init__(f"{path} is damaged", detail=why, hint="move it away and run the command again")


@contextlib.contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that names the path."""
    try:
        yield
    except OSError as error:
        raise StorageError(action, path, error) from error


def ensure_dir(path: Path, mode: int = 0o700) -> Path:
    """Make a directory and its missing parents (0700), or tighten one that is there to `mode`; returns it.

    Raises: StorageError, also when something else stands there.
    """
    with storage_errors("make the directory", path):
        missing = [parent for parent in path.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(0o700, exist_ok=True)
        path.mkdir(mode, exist_ok=True)
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)
    return path


def write_atomic(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replace a file in one step; a reader sees the old or the new content, never a part.

    `durable` also outlasts a power cut (fsync of file and directory): leave it off only for what a reboot makes void.
    Raises: StorageError; the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.tmp")
    with storage_errors("write", path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            _sync_dir(path.parent)


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Path) -> bytes | None:
    """The content, or None when there is no such file. Raises: StorageError."""
    with storage_errors("read", path):
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None


def read_json(path: Path) -> Any | None:
    """The value, or None when there is no such file. Raises: StorageError; CorruptFileError for what is no JSON."""
    data = read_bytes(path)
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError as error:
        raise CorruptFileError(path, f"not JSON: {error}") from error


def write_json(path: Path, value: Any, mode: int = 0o600, *, durable: bool = True) -> None:
    """`write_atomic` of indented JSON with sorted keys. Raises: StorageError, TypeError."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False)
    write_atomic(path, text.encode() + b"\n", mode, durable=durable)


def remove_file(path: Path) -> None:
    """Absence is success. Raises: StorageError."""
    with storage_errors("remove", path):
        path.unlink(missing_ok=True)


def remove_tree(path: Path, *, below: Path) -> None:
    """Remove a directory (or file, or link: the link itself) with all that is in it. Absence is success.

    Only what really lies below `below` is touched, whatever links stand on the way; links inside are removed, not
    followed; directories without write permission inside are opened first. Raises: StorageError, CinderError.
    """
    if ".." in path.parts or below not in path.parents or not path.is_relative_to(below):
        raise CinderError(f"refusing to remove {path}: not below {below}")
    with storage_errors("remove", path):
        if not os.path.lexists(path):
            return
        if path.parent.resolve() != below.resolve() / path.parent.relative_to(below):
            raise CinderError(f"refusing to remove {path}: a symbolic link on the way leads elsewhere")
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        for _ in range(4):  # something inside may still be written by a process that is about to end
            try:
                shutil.rmtree(path)
            except FileNotFoundError:
                if not os.path.lexists(path):
                    return
            except PermissionError:
                _unlock(path)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                return
        shutil.rmtree(path)


def _unlock(path: Path) -> None:
    """Give ourselves access to every directory of a tree; links are not followed."""
    path.chmod(0o700)
    for folder, names, _ in os.walk(path):
        for name in names:
            child = Path(folder, name)
            if not child.is_symlink():
                child.chmod(0o700)


def tail(path: Path, lines: int = 20, limit: int = 64 * 1024) -> list[str]:
    """The last lines of a text file, read from its last `limit` bytes; none when it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            text = file.read(limit).decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]
