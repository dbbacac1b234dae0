"""Who owns and who last changed which field of an object, read from metadata.managedFields. Pure.

FieldsV1 (the Kubernetes server-side apply reference): `f:<name>` is a field, `k:<JSON>` the list item with those keys,
`v:<JSON>` the item of a set with that value, `i:<n>` an item by place, `.` the thing itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

__all__ = ["FieldPath", "changed_by", "dotted", "owned_fields"]

FieldPath = tuple[str | int, ...]
"""From the object's root; list items by their place in the object as it is now."""


def owned_fields(obj: Mapping[str, Any], manager: str) -> set[FieldPath]:
    """The leaves that `manager` owns, by apply or update, except those of subresources such as status."""
    return {
        path
        for entry in _entries(obj)
        if entry.get("manager") == manager
        for path in _leaves(entry.get("fieldsV1") or {}, obj, ())
    }


def changed_by(obj: Mapping[str, Any], *, but: str = "") -> dict[str, str]:
    """Dotted path of each owned leaf -> "manager at time" of its latest owner, leaving out the manager `but`."""
    latest: dict[str, tuple[str, str]] = {}
    for entry in _entries(obj):
        manager, time = str(entry.get("manager") or ""), str(entry.get("time") or "")
        if not manager or manager == but:
            continue
        for path in _leaves(entry.get("fieldsV1") or {}, obj, ()):
            key = dotted(path)
            if key not in latest or latest[key][0] <= time:  # RFC 3339 in UTC sorts as text
                latest[key] = (time, f"{manager} at {time}" if time else manager)
    return {path: words for path, (_, words) in latest.items()}


def dotted(path: FieldPath) -> str:
    return ".".join(str(part) for part in path)


def _entries(obj: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    entries: Sequence[Mapping[str, Any]] = (obj.get("metadata") or {}).get("managedFields") or ()
    return (entry for entry in entries if not entry.get("subresource"))


def _leaves(fields: Mapping[str, Any], value: Any, path: FieldPath) -> Iterator[FieldPath]:
    children = [key for key in fields if key != "."]
    if not children:
        if path:
            yield path
        return
    for key in children:
        step = _step(key, value)
        if step is not None:
            yield from _leaves(fields[key] or {}, _child(value, step), (*path, step))


def _step(key: str, value: Any) -> str | int | None:
    """The part of a path that one FieldsV1 key means within `value`; None when the object has no such item any more."""
    kind, _, rest = key.partition(":")
    if kind == "f":
        return rest
    if kind == "i":
        return int(rest)
    items = value if isinstance(value, list) else []
    wanted = orjson.loads(rest)
    for place, item in enumerate(items):
        if kind == "v" and item == wanted:
            return place
        if kind == "k" and isinstance(item, dict) and _has_keys(item, wanted):
            return place
    return None


def _has_keys(item: Mapping[str, Any], keys: Mapping[str, Any]) -> bool:
    # A key may be a default that the object spells out while the field set does not, or the other way round.
    return all(item.get(name, value) == value for name, value in keys.items())


def _child(value: Any, step: str | int) -> Any:
    if isinstance(step, str):
        return value.get(step) if isinstance(value, Mapping) else None
    return value[step] if isinstance(value, list) and step < len(value) else None
