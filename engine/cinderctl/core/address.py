"""The address of a resource: `kind.name`, as `wasm_node.cinder-wasi`."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Address"]

_KIND = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, order=True, slots=True)
class Address:
    """Names one resource of a cluster. The name may hold any printable text, dots included; the kind may not."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `kind.name`. Raises: ValueError when there is no kind or no name."""
        kind, dot, name = text.partition(".")
        if not dot or not name or not _KIND.fullmatch(kind):
            raise ValueError(f"not an address: {text!r} (an address is KIND.NAME, as wasm_node.cinder-wasi)")
        return cls(kind, name)
