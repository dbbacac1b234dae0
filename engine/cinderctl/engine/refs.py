"""References inside inputs: finding them, replacing them by outputs, writing them down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from cinderctl.core.values import Ref, map_leaves, redacted
from cinderctl.engine.kinds import Declaration, inputs_as_dict

__all__ = ["plain_inputs", "refs_in", "resolve", "resolve_inputs", "storable"]

T = TypeVar("T")


def refs_in(value: Any) -> Iterator[Ref]:
    """Every reference in nested dicts, lists and tuples."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from refs_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from refs_in(item)


def plain_inputs(declaration: Declaration) -> dict[str, Any]:
    """The inputs as JSON with secrets redacted; references stay `Ref`."""
    plain: dict[str, Any] = redacted(inputs_as_dict(declaration.inputs))
    return plain


def resolve(value: Any, lookup: Callable[[Ref], Any]) -> Any:
    """The value with each reference replaced by `lookup`, which may return the reference itself when it is not known.

    Containers keep their type, and are the same object when nothing in them was a reference.
    """
    if isinstance(value, Ref):
        return lookup(value)
    if isinstance(value, Mapping):
        changed = {key: resolve(item, lookup) for key, item in value.items()}
        return changed if any(changed[key] is not item for key, item in value.items()) else value
    if isinstance(value, (list, tuple)):
        items = [resolve(item, lookup) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return tuple(items) if isinstance(value, tuple) else items
    return value


def resolve_inputs(inputs: T, lookup: Callable[[Ref], Any]) -> T:
    """A kind's inputs (a frozen dataclass) with its references replaced."""
    changed = {}
    for each in fields(inputs):  # type: ignore[arg-type]  # T is a dataclass by the protocol of kinds
        value = getattr(inputs, each.name)
        resolved = resolve(value, lookup)
        if resolved is not value:
            changed[each.name] = resolved
    return replace(inputs, **changed) if changed else inputs  # type: ignore[type-var]


def storable(value: Any) -> Any:
    """JSON in which a reference not known yet reads `{"cinderctl:ref": "registry.local.endpoint"}`."""
    return map_leaves(value, lambda leaf: {"cinderctl:ref": str(leaf)} if isinstance(leaf, Ref) else leaf)
