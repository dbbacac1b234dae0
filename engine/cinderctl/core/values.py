"""Values of resource inputs: plain JSON, plus references to outputs not yet known, plus secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from cinderctl.core.address import Address
from cinderctl.core.digest import digest_of

__all__ = ["SENSITIVE", "Json", "Ref", "Secret", "map_leaves", "redacted"]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

SENSITIVE = "(sensitive)"


@dataclass(frozen=True, order=True, slots=True)
class Ref:
    """The output of another resource; `(known after apply)` until that resource is there."""

    address: Address
    output: str

    def __str__(self) -> str:
        return f"{self.address}.{self.output}"


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A value never to be shown or stored. Compared by digest; `reveal` is the only way in."""

    _value: str

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"Secret({SENSITIVE})"

    def __str__(self) -> str:
        return SENSITIVE


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of nested dicts and lists with `change` applied to every leaf (tuples become lists)."""
    if isinstance(value, Mapping):
        return {str(key): map_leaves(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_leaves(item, change) for item in value]
    return change(value)


def redacted(value: Any) -> Any:
    """The storable form: every `Secret` becomes a marker with its digest, so that a change still shows as one."""

    def leaf(item: Any) -> Any:
        return f"{SENSITIVE} {digest_of(item.reveal())[:19]}" if isinstance(item, Secret) else item

    return map_leaves(value, leaf)
