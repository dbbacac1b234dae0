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
                # A link, refused by O_NOFOLLOW, is no directory either (ENOTDIR, or ELOOP on some systems).
                why = error.strerror or str(error)
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    kind = _kind(descriptor, part)
                    if kind == "a file" and number == len(parts) - 1:
                        return path, False
                    why = f"{part!r} in it is {kind}"
                raise CinderError(f"subPath {relative!r} cannot be used: {why}") from error
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


def _kind(parent: int, name: str) -> str:
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if stat.S_ISREG(mode):
        return "a file"
    return "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a directory"
