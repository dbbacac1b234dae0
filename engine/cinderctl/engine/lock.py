"""One run at a time for a cluster. The kernel holds the lock and frees it with its owner; a file beside it says who
that is.

The information never decides anything: a lock is free when `flock` says so. It names the holder to whoever waits,
and tells the next run that the last one died holding it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from cinderctl.core.diagnostics import CinderError, LockedError

__all__ = ["Lock", "Owner", "is_owner_alive", "lock_owner", "this_process"]

_POLL = 0.1  # seconds between two tries while waiting


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock. `boot` and `started` tell a process from a later one of the same number; `since` is when it
    took the lock, in seconds since the epoch.
    """

    pid: int
    started: str
    boot: str
    host: str
    command: str
    since: float

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {when} ({self.command})"


class Lock:
    """Held from `acquire` to `release`. `broken` is the owner that died holding it before us, if one did."""

    def __init__(self, path: Path, file: int, broken: Owner | None) -> None:
        self.path, self.broken = path, broken
        self._file = file

    @classmethod
    def acquire(
        cls,
        path: Path,
        *,
        timeout: float = 0.0,
        command: str = "",
        on_wait: Callable[[Owner | None], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> Lock:
        """Wait at most `timeout` seconds; `on_wait` is told once whom we wait for.

        Raises: LockedError that says who holds it; CinderError when the lock file cannot be made.
        """
        file = _open(path)
        try:
            _wait_for(file, path, timeout, on_wait)
            while not _is_at(file, path):
                # Whom we waited for took the directory away (a destroy): a lock on a file nobody finds is no lock.
                os.close(file)
                file = _open(path)
                _wait_for(file, path, timeout, on_wait)
            left = lock_owner(path)
            lock = cls(path, file, left if left is not None and not is_owner_alive(left) else None)
            _write_owner(path, this_process(command, now()))
        except BaseException:
            os.close(file)
            raise
        return lock

    def release(self) -> None:
        """Safe to call twice. The lock file stays: removing it would let two runs lock two files of the same name."""
        if self._file < 0:
            return
        _info(self.path).unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock_owner(path: Path) -> Owner | None:
    """Who last took the lock at `path` and did not release it, dead or alive; None when nobody or unreadable."""
    try:
        value = json.loads(_info(path).read_bytes())
        return Owner(
            int(value["pid"]), value["started"], value["boot"], value["host"], value["command"], float(value["since"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_owner_alive(owner: Owner) -> bool:
    """False only when it is provably dead: another boot, no such process, or a later one of the same number.

    On another host (a shared home directory) nothing can be proved.
    """
    if owner.host != socket.gethostname():
        return True
    if owner.boot and _boot_id() and owner.boot != _boot_id():
        return False
    started = _started(owner.pid)
    return bool(started) and (not owner.started or started == owner.started)


def this_process(command: str = "", since: float = 0.0) -> Owner:
    pid = os.getpid()
    told = command or " ".join(sys.argv[:4])
    return Owner(pid, _started(pid), _boot_id(), socket.gethostname(), told, since)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CinderError(
            f"cannot make the lock {path}",
            detail=error.strerror or str(error),
            hint="make its directory writable for this user",
        ) from error


def _is_at(file: int, path: Path) -> bool:
    """Whether the open file is the one that the path names now."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _wait_for(file: int, path: Path, timeout: float, on_wait: Callable[[Owner | None], None] | None) -> None:
    deadline = time.monotonic() + timeout
    told = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = lock_owner(path)
            if time.monotonic() >= deadline:
                raise _locked(path, owner, timeout) from None
            if on_wait and not told:
                on_wait(owner)
                told = True
            time.sleep(_POLL)
        else:
            return


def _locked(path: Path, owner: Owner | None, timeout: float) -> LockedError:
    waited = f" after waiting {timeout:g} s" if timeout else ""
    if owner is None:
        who = "a process that did not say who it is"
    elif is_owner_alive(owner):
        who = str(owner)
    else:
        who = f"a child of a run that ended, {owner}"
    return LockedError(
        f"another run holds the cluster{waited}",
        detail=f"The lock {path} is held by {who}",
        hint="wait for it to end, or give --lock-timeout; a run that dies frees the lock by itself",
    )


def _info(path: Path) -> Path:
    return path.with_name(f"{path.name}.info")


def _write_owner(path: Path, owner: Owner) -> None:
    temporary = path.with_name(f".{path.name}.info.new")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        json.dump(asdict(owner), stream)
    temporary.replace(_info(path))


def _boot_id() -> str:
    """Of this boot of the machine; "" where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in the system's own unit; "" when there is no such process (a zombie is none)."""
    if not Path("/proc/self/stat").exists():
        return _started_portably(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    state, *rest = stat.rpartition(b") ")[2].split()  # the name before may hold spaces and parentheses
    return "" if state in (b"Z", b"X") else rest[18].decode()


def _started_portably(pid: int) -> str:
    import psutil  # noqa: PLC0415 - only where /proc is missing

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return ""
