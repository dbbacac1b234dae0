"""Scalars that remember how they were written, and the reading of values as Kubernetes reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

__all__ = ["WORDS", "Path", "Word", "WrittenFloat", "WrittenInt", "as_kubernetes"]

Path: TypeAlias = "tuple[str | int, ...]"

# What YAML 1.1 takes for booleans, beside true and false.
WORDS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_OLD_OCTAL = re.compile(r"[-+]?0[0-7]+")


class WrittenInt(int):
    """An integer with the text it was written as."""

    text: str


class WrittenFloat(float):
    """A number with the text it was written as."""

    text: str


class Word(str):
    """Unquoted text that YAML 1.1 (so cinder, and kubectl) takes for a boolean: yes, no, on, off."""

    __slots__ = ()

    @property
    def boolean(self) -> bool:
        return WORDS[str(self)]


def as_kubernetes(value: Any) -> Any:
    """A copy in plain JSON types, read as kubectl reads it: unquoted yes/no/on/off are booleans, 0644 is octal."""
    match value:
        case Word():
            return value.boolean
        case WrittenInt():
            return int(value.text, 8) if _OLD_OCTAL.fullmatch(value.text) else int(value)
        case WrittenFloat():
            return float(value)
        case Mapping():
            return {str(key): as_kubernetes(item) for key, item in value.items()}
        case list() | tuple():
            return [as_kubernetes(item) for item in value]
    return value
