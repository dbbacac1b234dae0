"""Problems of a spec, with the value at fault beside the path."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cinderctl.core.diagnostics import Diagnostic

__all__ = ["SpecDiagnostic", "nearest", "render_path"]

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class SpecDiagnostic(Diagnostic):
    """`value` is what stands at the path, as JSON, for the line `path = value`; "" when long, nested or secret."""

    value: str = ""

    @property
    def field(self) -> str:
        """The path as a user reads it, with the value: `registryMirrors."myregistry.dev" = "myregistry.dev"`."""
        text = render_path(self.path)
        return f"{text} = {self.value}" if self.value else text


def render_path(path: Iterable[str | int]) -> str:
    """`("files", 0, "path")` as `files[0].path`; keys that are no plain words are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        word = part if _PLAIN_KEY.fullmatch(part) else json.dumps(part, ensure_ascii=False)
        text += f".{word}" if text else word
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that looks most like `word`, or ""; case is no difference at all."""
    names = list(known)
    folded = {name.lower(): name for name in reversed(names)}
    found = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else ""
