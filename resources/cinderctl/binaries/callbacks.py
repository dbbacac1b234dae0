"""The shapes of what a caller hands in to hear of progress and to stop."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["CheckCancelled", "LineSink", "Progress", "ignore_line", "never_cancelled", "silent"]

# (message, done, total): bytes of a download, modules or packages of a build; both None for a mere message
Progress = Callable[[str, int | None, int | None], None]
# raises when the work is to end
CheckCancelled = Callable[[], None]
LineSink = Callable[[str], None]


def silent(message: str, done: int | None, total: int | None) -> None:
    del message, done, total


def never_cancelled() -> None:
    pass


def ignore_line(line: str) -> None:
    del line
