"""Paths inside a volume a guest can write to: found without ever following a link the guest may have made."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from cinderctl.core.diagnostics import CinderError
from cinderctl.wasmnode.payload import check_relative

__all__ = ["beneath"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def beneath(root: Path, relative: str, *, create: bool) -> tuple[Path, bool]:
    """The path `root/relative` and whether it is a directory; with `create`, missing directories are made.

    Raises: CinderError when the path leaves the volume, leads through a link, is missing, or is neither file nor
    directory.
    """
    parts = check_relative(relative).parts
    path = root.joinpath(*parts)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, part in enumerate(parts):
            try:
                following = _enter(descriptor, part, create)
            except OSError as error:
                if error.errno == errno.ENOTDIR and number == len(parts) - 1:
                    return path, _is_directory(descriptor, part, relative)
                raise CinderError(f"subPath {relative!r} cannot be used: {_why(error)}") from error
            os.close(descriptor)
            descriptor = following
    finally:
        os.close(descriptor)
    return path, True


def _enter(parent: int, name: str, create: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    with contextlib.suppress(FileExistsError):  # another container of the pod may be faster
        os.mkdir(name, 0o755, dir_fd=parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _is_directory(parent: int, name: str, relative: str) -> bool:
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if stat.S_ISREG(mode):
        return False
    kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a directory"
    raise CinderError(f"subPath {relative!r} cannot be used: it is {kind}")


def _why(error: OSError) -> str:
    return "it leads through a symbolic link" if error.errno == errno.ELOOP else (error.strerror or str(error))
