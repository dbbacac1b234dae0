"""Long work on a stream: one line that rewrites itself on a terminal, now and then a plain line anywhere else."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

__all__ = ["Progress", "amount"]

_EVERY = 5.0  # seconds between plain lines: a CI log wants signs of life, not a film
_FRAME = 0.1


def amount(done: int | None, total: int | None) -> str:
    """`12 of 48`, in MB where the numbers are bytes; "" when there is nothing to count."""
    if done is None:
        return ""
    if (total or done) > 1_000_000:
        return f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
    return f"{done} of {total}" if total else f"{done}"


class Progress:
    """`update(message, done, total)` as often as one likes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._message = ""
        self._next = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self._message:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def update(self, message: str, done: int | None = None, total: int | None = None) -> None:
        now = self._clock()
        fresh = message != self._message
        if not fresh and now < self._next:
            return
        self._message = message
        self._next = now + (_FRAME if self._terminal else _EVERY)
        line = "  ".join(filter(None, [message, amount(done, total)]))
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\033[K{line[:width]}")
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()
