"""The logs of components: size-bound rotation, and a handler that sends a task's records to its own file.

Rotation copies and truncates: the processes append to a file they opened, and are never asked to reopen it. What is
written between copy and truncation is lost, which a log can bear.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from contextvars import ContextVar
from pathlib import Path

__all__ = ["CURRENT", "ComponentLogHandler", "rotate"]

CURRENT: ContextVar[str] = ContextVar("component", default="supervisor")

_log = logging.getLogger(__name__)


def rotate(path: Path, *, limit: int, keep: int) -> None:
    """When the file is longer than `limit` bytes: move it to `<name>.1`, `.1` to `.2`, ...; `keep` files in all."""
    try:
        size = path.stat().st_size
        if size <= limit:
            return
        aside = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, keep))]
        for older, newer in zip(aside[:0:-1], aside[-2:0:-1], strict=False):
            if newer.exists():
                newer.replace(older)
        if keep > 1:
            _copy(path, aside[1])
        os.truncate(path, 0)
    except OSError as error:
        _log.warning("cannot rotate %s: %s", path, error)
        if size_of(path) > 4 * limit:  # a full disk must not be filled further by what nobody can rotate
            with contextlib.suppress(OSError):
                os.truncate(path, 0)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
        target.chmod(0o600)
    except OSError:
        target.unlink(missing_ok=True)
        raise


class ComponentLogHandler(logging.Handler):
    """Appends each record to `<logs>/<component>.log`, the component being the task it was logged in."""

    def __init__(self, logs: Path) -> None:
        super().__init__(logging.INFO)
        self._logs = logs
        formatter = logging.Formatter(
            "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        # A log that cannot be written must stop nothing.
        with contextlib.suppress(OSError):
            path = self._logs / f"{CURRENT.get()}.log"
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", errors="replace") as file:
                file.write(self.format(record) + "\n")
