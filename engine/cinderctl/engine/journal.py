"""The journal of a cluster: which steps were begun and how they ended. Append-only, checksummed, durable before the
act.

It explains an interrupted run and is never the source of what exists: the world is. Deleting it loses the history
and nothing else. One record is one line of JSON with the CRC-32 of the rest of the line in its last member,
numbered without a gap. A torn last line (power cut, full disk) is dropped; damage further up is reported, since
what stands after it cannot be trusted to be complete.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError, Diagnostic
from cinderctl.engine.history import Fold, History, RunRecord, StepRecord

__all__ = ["History", "Journal", "JournalError", "RunRecord", "StepRecord", "read_journal"]

_VERSION = 1
_LIMIT = 1 << 20  # bytes; at the next start a larger journal is rewritten with its newest half
_CRC = b',"crc":"'


class JournalError(CinderError):
    """The journal cannot be read or written."""


def read_journal(path: Path) -> History:
    """Read without changing anything; no file is an empty history. Raises: JournalError for a damaged file."""
    fold = Fold()
    for record in _parse(path)[0]:
        fold.take(record)
    return fold.history()


class Journal:
    """Open for writing by the one process that holds the cluster's lock. Threads may begin and end steps at once: those
    that wait for the disk at the same time share one fsync."""

    def __init__(self, path: Path, file: int, fold: Fold, number: int, now: Callable[[], float]) -> None:
        self._path, self._file, self._fold, self._number, self._now = path, file, fold, number, now
        self._condition = threading.Condition()
        self._buffer: list[bytes] = []
        self._durable = number
        self._writing = False
        self._broken: JournalError | None = None
        self._opened: dict[int, Address] = {}
        self.syncs = 0

    @classmethod
    def open(cls, path: Path, *, limit: int = _LIMIT, now: Callable[[], float] = time.time) -> Journal:
        """Create it, or continue it after dropping a torn tail and compacting it when it is larger than `limit` bytes.

        Raises: JournalError.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            records, good = _parse(path)
            fold = Fold()
            for record in records:
                fold.take(record)
            if not records:
                _replace(path, [_line(_header(0, fold))])
            elif good > limit:
                _replace(path, _compacted(records, fold, limit // 2))
            number = records[-1]["n"] if records else 0
            flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(path, flags)
            if records and good <= limit and os.fstat(file).st_size > good:
                os.ftruncate(file, good)
                os.fsync(file)
        except OSError as error:
            raise _unwritable(path, error) from error
        return cls(path, file, fold, number, now)

    @property
    def history(self) -> History:
        with self._condition:
            return self._fold.history()

    def start_run(self, run: str, mode: str, *, present: Collection[Address], settled: Collection[Address]) -> None:
        """`present`: what is there now; `settled`: what an earlier run left and there is nothing to do about."""
        had = self._fold.existing
        now = set(present)
        record = {"t": "run", "run": run, "mode": mode, "at": self._stamp()}
        lists = {"add": now - had, "drop": had - now, "settled": set(settled) & self._fold.history().unfinished.keys()}
        record.update({key: sorted(map(str, items)) for key, items in lists.items() if items})
        self._append(record)

    def begin(self, address: Address, phase: str) -> int:
        """Note that a step begins. Durable on return. Raises: JournalError, and then the step must not be done."""
        number = self._append({"t": "begin", "a": str(address), "do": phase, "at": self._stamp()})
        self._commit(number)
        return number

    def end(self, begun: int, outcome: str, seconds: float, detail: str = "") -> None:
        """Note how it ended. Durable with the next begin, or with the end of the run: nothing that relies on it
        is done before. Raises: JournalError.
        """
        record: dict[str, Any] = {"t": "end", "of": begun, "ok": outcome, "s": round(seconds, 3)}
        if detail:
            record["why"] = detail[:400]
        self._append(record)

    def finish_run(self, run: str, outcome: str, seconds: float) -> None:
        """Durable on return. Raises: JournalError."""
        self._commit(self._append({"t": "done", "run": run, "ok": outcome, "s": round(seconds, 3)}))

    def close(self) -> None:
        """Flush and close; safe to call twice. Raises: JournalError."""
        if self._file < 0:
            return
        try:
            if self._broken is None:
                self._commit(self._number)
        finally:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stamp(self) -> float:
        return round(self._now(), 3)

    def _append(self, record: dict[str, Any]) -> int:
        with self._condition:
            if self._broken:
                raise self._broken
            self._number += 1
            record = {"n": self._number, **record}
            self._fold.take(record)
            self._buffer.append(_line(record))
            return self._number

    def _commit(self, number: int) -> None:
        """Wait until record `number` is on the disk. The first to come writes for all that came by then."""
        with self._condition:
            while self._durable < number:
                if self._broken:
                    raise self._broken
                if self._writing:
                    self._condition.wait()
                    continue
                self._writing = True
                batch, last = b"".join(self._buffer), self._number
                self._buffer.clear()
                self._condition.release()
                failure: OSError | None = None
                try:
                    _write_all(self._file, batch)
                    os.fsync(self._file)
                except OSError as error:
                    failure = error
                finally:
                    self._condition.acquire()
                    self._writing = False
                    self._condition.notify_all()
                if failure is not None:
                    self._broken = _unwritable(self._path, failure)
                    raise self._broken from failure
                self.syncs += 1
                self._durable = last


def _header(number: int, fold: Fold) -> dict[str, Any]:
    history = fold.history()
    return {
        "n": number,
        "t": "journal",
        "version": _VERSION,
        "exists": sorted(map(str, history.existing)),
        "unfinished": {str(address): do for address, do in sorted(history.unfinished.items())},
    }


def _compacted(records: list[dict[str, Any]], fold: Fold, room: int) -> list[bytes]:
    """The state, then as many whole runs from the end as fit in `room` bytes."""
    lines = [_line(record) for record in records]
    first, size = len(records), 0
    for index in range(len(records) - 1, -1, -1):
        size += len(lines[index])
        if size > room:
            break
        if records[index]["t"] == "run":
            first = index
    number = records[first]["n"] - 1 if first < len(records) else records[-1]["n"]
    return [_line(_header(number, fold)), *lines[first:]]


def _line(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()[:-1]
    return b'%s%s%08x"}\n' % (body, _CRC, zlib.crc32(body))


def _read_line(line: bytes) -> dict[str, Any] | None:
    body, mark, check = line.rpartition(_CRC)
    if not mark or check != b'%08x"}' % zlib.crc32(body):
        return None
    try:
        record: dict[str, Any] = json.loads(body + b"}")
    except ValueError:
        return None
    return record


def _parse(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records, and how many bytes of the file are good."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}", detail=str(error)) from error
    records: list[dict[str, Any]] = []
    good = start = 0
    bad_line = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        end = start + len(line) + 1
        record = _read_line(line) if end <= len(data) else None
        start = end
        if record is None:
            bad_line = bad_line or number
            continue
        expected = records[-1]["n"] + 1 if records else record["n"]
        if bad_line or record["n"] != expected:
            raise _damaged(path, bad_line or number)
        _check_version(path, records, record)
        records.append(record)
        good = end
    if data.strip(b"\0\n ") and not records:
        raise _damaged(path, 1)
    return records, good


def _check_version(path: Path, before: Iterable[Any], record: dict[str, Any]) -> None:
    if before:
        return
    if record["t"] != "journal":
        raise _damaged(path, 1)
    if record["version"] > _VERSION:
        raise JournalError(
            f"the journal {path} was written by a newer version",
            detail=f"It has format {record['version']}, this version reads up to {_VERSION}",
            hint=f"use the newer version, or move the file aside: {_MOVING}",
        )


_MOVING = "what exists is read from the world, so only the history of runs is lost"


def _damaged(path: Path, line: int) -> JournalError:
    return JournalError(
        Diagnostic(
            f"the journal is damaged at line {line}",
            f"Something changed {path} after it was written; nothing was done",
            f"move it aside and run again: mv {path} {path}.damaged ({_MOVING})",
            source=f"{path}:{line}",
        )
    )


def _unwritable(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"cannot write the journal {path}",
        detail=f"{error.strerror or error}. No step is begun without a durable note of it",
        hint="free some space or make the directory writable, then run again: what is done stays done",
    )


def _write_all(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def _replace(path: Path, lines: list[bytes]) -> None:
    """Atomically: a crash leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _write_all(file, b"".join(lines))
        os.fsync(file)
    finally:
        os.close(file)
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
