"""Which process it is: a pid that was given to another process later is never taken for the first one.

On Linux the kernel's own start time (clock ticks since boot) and the boot id name a process for good: no clock change
moves them, and after a reboot nothing recorded is alive. Elsewhere psutil's creation time stands in. The command's
digest says what was started; it is not compared with the running command line, which programs rewrite.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["MARK", "Identity", "ProcessStat", "find_marked", "identity_of", "is_alive", "read_stat"]

# Set in the environment of every component as `<directory>#<component>`: finds a process whose record was lost.
MARK = "CINDERCTL_COMPONENT"

_PROC = Path("/proc")
_HAS_PROC = (_PROC / "self/stat").exists()


@dataclass(frozen=True, slots=True)
class Identity:
    """`started`: clock ticks since boot on Linux, seconds since the epoch elsewhere. `boot`: boot id, "" elsewhere.
    `command`: digest of the argv it was started with."""

    pid: int
    started: float
    command: str
    boot: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.pid, "started": self.started, "command": self.command, "boot": self.boot}

    @classmethod
    def from_json(cls, value: Any) -> Identity:
        """Raises: ValueError for anything `to_json` did not give."""
        if not isinstance(value, Mapping):
            raise ValueError("not a process identity")
        try:
            made = cls(int(value["pid"]), float(value["started"]), str(value["command"]), str(value.get("boot", "")))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a process identity: {error}") from error
        if made.pid <= 1:  # 0 and -1 mean whole groups to kill(2), and 1 is never ours
            raise ValueError(f"not a process identity: pid {made.pid}")
        return made


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What the kernel says of a pid. `dead`: ended, only not yet reaped by its parent."""

    started: float
    dead: bool
    group: int
    session: int


def read_stat(pid: int) -> ProcessStat | None:
    """None when there is no such process."""
    return _read_stat_linux(pid) if _HAS_PROC else _read_stat_elsewhere(pid)


def identity_of(pid: int, command: str) -> Identity | None:
    """The identity of a process that runs now, None when it does not."""
    stat = read_stat(pid)
    return None if stat is None or stat.dead else Identity(pid, stat.started, command, _boot_id())


def is_alive(identity: Identity) -> bool:
    """Whether that very process runs. Zombies are dead; who its parent is does not matter."""
    if identity.boot != _boot_id():
        return False
    stat = read_stat(identity.pid)
    return stat is not None and not stat.dead and abs(stat.started - identity.started) < 0.005


def find_marked(mark: str) -> dict[str, Identity]:
    """Component → its living process, by the mark `<mark>#<component>` in the environment: the oldest session leader
    that carries it. Reads only processes of the same user."""
    found: dict[str, Identity] = {}
    for pid, value in _marks():
        directory, hash_sign, name = value.rpartition("#")
        if not hash_sign or directory != mark:
            continue
        stat = read_stat(pid)
        identity = identity_of(pid, "")
        if stat is None or identity is None or stat.session != pid:
            continue
        if name not in found or identity.started < found[name].started:
            found[name] = identity
    return found


def _marks() -> Iterator[tuple[int, str]]:
    if not _HAS_PROC:
        yield from _marks_elsewhere()
        return
    prefix = f"{MARK}=".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            content = (entry / "environ").read_bytes()
        except OSError:  # ended meanwhile, or somebody else's
            continue
        if prefix in content:
            for item in content.split(b"\0"):
                if item.startswith(prefix):
                    yield int(entry.name), os.fsdecode(item[len(prefix) :])


def _marks_elsewhere() -> Iterator[tuple[int, str]]:
    import psutil  # noqa: PLC0415  # costs memory and start-up time that Linux never pays

    for process in psutil.process_iter():
        try:
            value = process.environ().get(MARK)
        except psutil.Error:
            continue
        if value is not None:
            yield process.pid, value


def _read_stat_linux(pid: int) -> ProcessStat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the command name in parentheses may hold anything; state is the field after it, start time the 22nd.
    rest = text[text.rindex(b")") + 2 :].split()
    return ProcessStat(float(rest[19]), rest[0] in (b"Z", b"X", b"x"), int(rest[2]), int(rest[3]))


def _read_stat_elsewhere(pid: int) -> ProcessStat | None:
    import psutil  # noqa: PLC0415

    try:
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return ProcessStat(process.create_time(), dead, os.getpgid(pid), os.getsid(pid))
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None


@functools.cache
def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
