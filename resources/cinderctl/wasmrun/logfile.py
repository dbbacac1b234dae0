"""A container's log in the CRI format: `<RFC3339Nano UTC> stdout|stderr F|P <line>`.

A line is written when its newline comes; what stands at the end without one is written as a full line, as containerd
does. A line over 16 KiB is cut into parts tagged P and a last one tagged F. A file that would pass its limit is renamed
to `<path>.<YYYYmmdd-HHMMSS>` and a new one begun; the oldest go. A full disk loses log, never the guest.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["DEFAULT_LIMIT", "MAX_LINE", "Bucket", "CriLog"]

# containerd's and CRI-O's buffer; the kubelet's reader joins P parts again.
MAX_LINE = 16 * 1024
# The kubelet's containerLogMaxSize.
DEFAULT_LIMIT = 10 << 20
_TAIL = 1024


class CriLog:
    """One log file being appended to; the caller holds a lock. `stderr_tail` is the last KiB of stderr."""

    def __init__(self, path: Path, *, limit: int = 0, files: int = 5, clock: Callable[[], int] = time.time_ns) -> None:
        """`limit` in bytes, 0 for the default; `files` are kept; `clock` gives Unix nanoseconds. Raises OSError."""
        self._path = path
        self._limit = limit or DEFAULT_LIMIT
        self._files = files
        self._clock = clock
        self._partial = {"stdout": b"", "stderr": b""}
        self._second = (-1, b"")
        self._lost = 0
        self.stderr_tail = b""
        self._fd, self._size = _open(path)

    def feed(self, stream: str, data: bytes) -> None:
        """Takes what the guest wrote to `stdout` or `stderr`."""
        if stream == "stderr":
            self.stderr_tail = (self.stderr_tail + data)[-_TAIL:]
        lines = (self._partial[stream] + data).split(b"\n")
        rest = lines.pop()
        out: list[bytes] = []
        prefix = self._prefix(stream)
        for line in lines:
            if len(line) > MAX_LINE:
                line = _cut(prefix, line, out)  # noqa: PLW2901
            out += (prefix, b"F ", line, b"\n")
        if len(rest) > MAX_LINE:
            rest = _cut(prefix, rest, out)
        self._partial[stream] = rest
        if out:
            self._write(b"".join(out))

    def finish(self) -> None:
        """Writes what stands without a newline and closes the file."""
        for stream, rest in self._partial.items():
            if rest:
                self._write(self._prefix(stream) + b"F " + rest + b"\n")
        self._partial = {"stdout": b"", "stderr": b""}
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _prefix(self, stream: str) -> bytes:
        seconds, nanoseconds = divmod(self._clock(), 1_000_000_000)
        if self._second[0] != seconds:
            self._second = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode())
        return b"%s.%09dZ %s " % (self._second[1], nanoseconds, stream.encode())

    def _write(self, data: bytes) -> None:
        if self._lost:
            note = f"[{self._lost} bytes of this log could not be written]\n".encode()
            data = self._prefix("stderr") + b"F " + note + data
        if self._size and self._size + len(data) > self._limit:
            self._rotate()
        view = memoryview(data)
        try:
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
            self._lost = 0
        except OSError:
            # ENOSPC, EDQUOT, EIO, or no file since a failed rotation: the guest must not suffer for it.
            self._lost += len(view)

    def _rotate(self) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(self._clock() // 1_000_000_000))
        target = self._path.with_name(f"{self._path.name}.{stamp}")
        number = 0
        while target.exists():
            number += 1
            target = self._path.with_name(f"{self._path.name}.{stamp}-{number:03d}")
        with contextlib.suppress(OSError):
            self._path.rename(target)
            fd, self._size = _open(self._path)
            os.close(self._fd)
            self._fd = fd
        for old in _rotated(self._path)[: -(self._files - 1) or None]:
            old.unlink(missing_ok=True)


class Bucket:
    """A token bucket in bytes that may go into debt."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """`rate` in bytes per second, `now` in seconds of any steady clock."""
        self._rate, self._burst = rate, burst
        self._tokens, self._then = burst, now

    def take(self, count: int, now: float) -> float:
        """Takes `count` bytes; returns how many seconds to wait before taking more."""
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate) - count
        self._then = now
        return max(0.0, -self._tokens / self._rate)


def _open(path: Path) -> tuple[int, int]:
    # O_NOFOLLOW: the log directory is ours, a link in it is not.
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    return fd, os.fstat(fd).st_size


def _rotated(path: Path) -> list[Path]:
    """The rotated files of a log, oldest first."""
    names: Iterable[str] = os.listdir(path.parent)  # noqa: PTH208 (pathlib's would build a Path for each)
    return [path.with_name(name) for name in sorted(names) if name.startswith(f"{path.name}.")]


def _cut(prefix: bytes, line: bytes, out: list[bytes]) -> bytes:
    """Appends all but the last part of an over-long line to `out`, tagged P; returns the last part."""
    start = 0
    while len(line) - start > MAX_LINE:
        out += (prefix, b"P ", line[start : start + MAX_LINE], b"\n")
        start += MAX_LINE
    return line[start:]
