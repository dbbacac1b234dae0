"""Unix sockets whose path may be longer than the 108 bytes a socket address holds (unix(7))."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from cinderctl.host.files import remove_file, storage_errors

__all__ = ["bind", "connect"]

_LONGEST = 100


def bind(path: Path) -> socket.socket:
    """A listening socket only its owner can open; a stale one is replaced. Raises: StorageError."""
    remove_file(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux gives the socket file the mode of the socket itself: nobody else gets in even before a chmod.
        os.fchmod(server.fileno(), 0o600)
        with storage_errors("listen on", path), _short(path) as name:
            server.bind(name)
            path.chmod(0o600)
            server.listen(16)
    except BaseException:
        server.close()
        raise
    return server


def connect(path: Path, timeout: float) -> socket.socket:
    """Raises: OSError."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.settimeout(timeout)
        with _short(path) as name:
            client.connect(name)
    except BaseException:
        client.close()
        raise
    return client


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path, or one to the same file through an open directory."""
    if len(os.fsencode(path)) < _LONGEST:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
