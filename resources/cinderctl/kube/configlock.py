"""The lock beside a kubeconfig file: `<file>.lock`, made exclusively, as kubectl and every other user of client-go
does.

client-go's lock is an empty file, so nobody can tell whether its owner lives; ours names us. Only a lock whose
owner is proven dead is taken over: a living one is waited for, one that says nothing is left to the user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cinderctl.core.diagnostics import LockedError
from cinderctl.host.files import storage_errors
from cinderctl.host.identity import Identity, identity_of, is_alive

__all__ = ["config_locks"]

_PAUSE = 0.05  # seconds between looks at another's lock; kubectl holds one for milliseconds


@contextlib.contextmanager
def config_locks(
    files: Iterable[Path], *, patience: float, pause: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the locks of all `files`, in one order everywhere. Files whose directory cannot be written are left out.

    Raises LockedError when another holds one for longer than `patience` seconds, StorageError.
    """
    with contextlib.ExitStack() as held:
        for file in sorted(set(files)):
            lock = file.with_name(file.name + ".lock")
            if _acquire(lock, patience, pause):
                held.callback(lock.unlink, missing_ok=True)
        yield


def _acquire(lock: Path, patience: float, pause: Callable[[float], None]) -> bool:
    deadline = time.monotonic() + patience
    while True:
        with storage_errors("lock", lock):
            try:
                _make(lock)
                return True
            except FileExistsError:
                if _break_dead(lock):
                    continue
            except OSError as problem:
                # Nobody can write beside a file in a read-only or missing directory, so there is nothing to guard.
                if problem.errno in {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}:
                    return False
                raise
        if time.monotonic() >= deadline:
            raise LockedError(
                f"{lock} is held by another program",
                detail=f"It was made {_age(lock)} and is still there after {patience:g} s",
                hint=f"when no other tool is changing the kubeconfig, remove {lock} and run the command again",
            )
        pause(_PAUSE)


def _make(lock: Path) -> None:
    """Make the lock with our name in it in one step. Raises FileExistsError, OSError."""
    named = lock.with_name(f".{lock.name}.{secrets.token_hex(6)}")
    descriptor = os.open(named, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(descriptor, _signature())
        finally:
            os.close(descriptor)
        try:
            lock.hardlink_to(named)
        except OSError as problem:
            if problem.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}:
                raise
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))  # no links here
    finally:
        named.unlink(missing_ok=True)


def _break_dead(lock: Path) -> bool:
    """Remove a lock whose owner is dead; True when it is worth trying again at once."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    with os.fdopen(descriptor) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of two that find it dead, one removes it
            if not _owner_is_dead(file.read(4096)) or lock.stat().st_ino != os.fstat(descriptor).st_ino:
                return False
            lock.unlink()
        except OSError:
            return False
    return True


def _signature() -> bytes:
    me = identity_of(os.getpid(), "kubeconfig")
    return json.dumps({"host": _host(), "owner": me.to_json() if me else None}).encode()


def _owner_is_dead(text: str) -> bool:
    try:
        said = json.loads(text)
        owner = Identity.from_json(said["owner"])
        here = said["host"] == _host()
    except (ValueError, LookupError, TypeError):
        return False
    return here and not is_alive(owner)


def _host() -> str:
    """Where pids mean something: this host, and this pid namespace of it."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}"


def _age(lock: Path) -> str:
    try:
        seconds = max(0.0, time.time() - lock.lstat().st_mtime)
    except OSError:
        return "a moment ago"
    return f"{seconds:.0f} s ago"
