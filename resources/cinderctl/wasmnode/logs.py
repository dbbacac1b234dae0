"""Reading container logs in CRI form: `<RFC 3339 time with nanoseconds> stdout|stderr F|P <text>`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cinderctl.kube.resources import parse_time

__all__ = ["LogLine", "LogOptions", "log_files", "moment_of", "parse_line", "read_log"]

_CHUNK = 1 << 18
_PIECE = 1 << 16
_POLL_FIRST, _POLL_MOST = 0.03, 0.25  # seconds between two looks at a log that is followed


@dataclass(frozen=True, slots=True)
class LogOptions:
    """As the API's PodLogOptions. `since` in Unix seconds; `stream` is "", stdout or stderr."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: float | None = None
    limit: int | None = None
    stream: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record. `partial`: the text goes on in the next record of the same stream."""

    time: bytes
    stream: bytes
    partial: bool
    text: bytes

    def render(self, timestamps: bool) -> bytes:
        head = self.time + b" " if timestamps else b""
        return head + self.text + (b"" if self.partial else b"\n")


def parse_line(line: bytes) -> LogLine | None:
    """None for what is no record of the CRI log format."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    return LogLine(parts[0], parts[1], parts[2].split(b":")[0] == b"P", parts[3] if len(parts) == 4 else b"")


def log_files(log: Path) -> list[Path]:
    """The files of one log, oldest first: rotated ones (`<log>.<time>`), then the current."""
    rotated = sorted(log.parent.glob(f"{log.name}.*")) if log.parent.is_dir() else []
    return [*rotated, *([log] if log.exists() else [])]


async def read_log(log: Path, options: LogOptions, over: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log as text, chunk by chunk. `over`: nothing more will be written, so following ends with the file."""
    budget = _Budget(options.limit)
    reader = _Reader(log)
    try:
        # The current file is opened before the rotated ones are listed, so that a rotation in between loses nothing.
        reader.open()
        rotated = [path for path in log_files(log) if not reader.reads(path)]
        lines = _last(rotated, reader, options) if options.tail is not None else _all(rotated, reader)
        for chunk in _chunks(lines, options):
            if taken := budget.take(chunk):
                yield taken
            if budget.spent:
                return
        pause = _POLL_FIRST
        while options.follow:
            ended = over()  # asked before reading, so that the last lines are not missed
            quiet = True
            for chunk in _chunks(reader.more(), options):
                quiet = False
                if taken := budget.take(chunk):
                    yield taken
                if budget.spent:
                    return
            if quiet and ended:
                return
            pause = min(pause * 1.5, _POLL_MOST) if quiet else _POLL_FIRST
            if quiet:
                await asyncio.sleep(pause)
    finally:
        reader.close()


def _chunks(lines: Iterable[LogLine], options: LogOptions) -> Iterator[bytes]:
    """The wanted lines, rendered, in pieces of moderate size: a log may be larger than the agent may grow."""
    stream = options.stream.encode()
    since = _stamp(options.since) if options.since is not None else b""
    pieces: list[bytes] = []
    size = 0
    for line in lines:
        if (stream and line.stream != stream) or line.time < since:
            continue
        piece = line.render(options.timestamps)
        pieces.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield b"".join(pieces)


def _all(rotated: Iterable[Path], reader: _Reader) -> Iterator[LogLine]:
    for path in rotated:
        old = _Reader(path)
        try:
            yield from old.more()
        finally:
            old.close()
    yield from reader.more()


def _last(rotated: list[Path], reader: _Reader, options: LogOptions) -> list[LogLine]:
    """The last `options.tail` whole lines, read from the end; pieces of one line count as one."""
    found: list[LogLine] = []
    wanted = max(0, options.tail or 0)
    contents = [reader.rest_at_once()] if wanted else []
    if not wanted:
        reader.skip()
    whole = 0
    stream = options.stream.encode()
    while contents:
        data = contents.pop()
        end = len(data)
        while end > 0:
            start = data.rfind(b"\n", 0, end) + 1
            line = parse_line(data[start:end])
            end = start - 1
            if line is None or (stream and line.stream != stream):
                continue
            whole += not line.partial
            if whole > wanted:
                return found[::-1]
            found.append(line)
        if rotated:
            contents.append(rotated.pop().read_bytes().rstrip(b"\n"))
    return found[::-1]


def _stamp(moment: float) -> bytes:
    """A time as the log writes it, so that text compares as time does."""
    text = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return f"{text}000Z".encode()


class _Budget:
    """What `limitBytes` leaves."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit

    @property
    def spent(self) -> bool:
        return self._left is not None and self._left <= 0

    def take(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        taken = data[: max(0, self._left)]
        self._left -= len(taken)
        return taken


class _Reader:
    """Complete lines of a log that is written and rotated meanwhile."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._descriptor: int | None = None
        self._rest = b""

    def open(self) -> bool:
        """Whether the file is there (and open)."""
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self._log, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        return True

    def reads(self, path: Path) -> bool:
        """Whether `path` is the open file, under whatever name."""
        if self._descriptor is None:
            return False
        try:
            there = path.lstat()
        except FileNotFoundError:
            return True  # gone meanwhile: nothing to be read from it either
        here = os.fstat(self._descriptor)
        return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)

    def more(self) -> Iterator[LogLine]:
        """What was written since the last call; follows a rotation to the new file after the old one's end."""
        while self.open():
            yield from self._drain()
            if self.reads(self._log):
                return
            yield from self._drain()  # written between the first look and the rotation
            self.close()

    def rest_at_once(self) -> bytes:
        """Every complete line to the end of the open file, without the last newline."""
        if self._descriptor is None:
            return b""
        pieces = []
        while data := os.read(self._descriptor, _CHUNK):
            pieces.append(data)
        lines, _, self._rest = b"".join(pieces).rpartition(b"\n")
        return lines

    def skip(self) -> None:
        """To the end of the open file."""
        if self._descriptor is not None:
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self._rest = b""

    def _drain(self) -> Iterator[LogLine]:
        while self._descriptor is not None and (data := os.read(self._descriptor, _CHUNK)):
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                if (parsed := parse_line(line)) is not None:
                    yield parsed


def moment_of(text: str) -> float:
    """A `sinceTime`. Raises: ValueError."""
    return parse_time(text).timestamp()
