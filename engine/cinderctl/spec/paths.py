"""Paths of this machine that a spec names: made absolute, looked at without surprises."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path as FilePath
from typing import Literal

__all__ = ["absolute", "what_is_at"]


def absolute(text: str, directory: FilePath, home: FilePath | None = None) -> str:
    """A path relative to `directory`, or to `home` (default: the account's) when it begins with `~/`."""
    if text == "~" or text.startswith("~/"):
        return str(home or FilePath(pwd.getpwuid(os.getuid()).pw_dir)) + text[1:]
    return os.path.normpath(directory / text)


def what_is_at(path: FilePath) -> Literal["file", "directory", "something else", "nothing"]:
    """Links are followed; what cannot be looked at is nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return "nothing"
    if stat.S_ISREG(mode):
        return "file"
    return "directory" if stat.S_ISDIR(mode) else "something else"
