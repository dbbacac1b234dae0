"""The bookkeeping of a watch, without I/O: what a list or a line of the stream means after the earlier ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

__all__ = ["Event", "EventType", "Seen", "is_error_line", "resource_version"]

EventType = Literal["ADDED", "MODIFIED", "DELETED", "SYNCED", "BOOKMARK"]


@dataclass(frozen=True, slots=True)
class Event:
    """SYNCED has an empty object: the events before it are a complete picture of the collection.

    A DELETED that was found missing in a new list carries only metadata.name, namespace, uid and resourceVersion.
    """

    type: EventType
    object: dict[str, Any]


def is_error_line(line: bytes) -> bool:
    """Whether a line of the stream is an ERROR event; the API server writes the type first."""
    return b'"ERROR"' in line[:40]


def resource_version(line: bytes) -> str:
    """metadata.resourceVersion of the object in a line of the stream; "" for a line that has none."""
    try:
        return str(orjson.loads(line)["object"]["metadata"]["resourceVersion"])
    except (ValueError, LookupError, TypeError):
        return ""


class Seen:
    """Which objects of a collection the reader knows of: only (namespace, name) -> (uid, resourceVersion) of each."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[str, str]] = {}

    def listed(self, items: Iterable[dict[str, Any]]) -> Iterator[Event]:
        """Events that lead from what was known to a fresh list, ended by SYNCED. What did not change yields nothing."""
        before, self._known = self._known, {}
        fresh: list[Event] = []
        for item in items:
            key, version = _identity(item)
            self._known[key] = version
            known = before.get(key)
            if known is not None and known[0] == version[0]:
                del before[key]
                if known[1] != version[1]:
                    fresh.append(Event("MODIFIED", item))
            else:
                fresh.append(Event("ADDED", item))
        for (namespace, name), (
            uid,
            version_,
        ) in before.items():  # gone first, so that a new object of the same name follows
            metadata = {"name": name, "uid": uid, "resourceVersion": version_}
            yield Event("DELETED", {"metadata": metadata | ({"namespace": namespace} if namespace else {})})
        yield from fresh
        yield Event("SYNCED", {})

    def changed(self, line: bytes) -> tuple[Event, ...]:
        """The event of one line of the stream; nothing for what the reader knows already or a type it cannot know.

        Raises ValueError, LookupError or TypeError for what is no watch event.
        """
        raw: Mapping[str, Any] = orjson.loads(line)
        type_, item = raw["type"], raw["object"]
        if type_ == "BOOKMARK":
            return (Event("BOOKMARK", item),)
        key, version = _identity(item)
        if type_ == "DELETED":
            self._known.pop(key, None)
            return (Event("DELETED", item),)
        if type_ not in {"ADDED", "MODIFIED"}:
            return ()
        known = self._known.get(key)
        if known == version:
            return ()  # a resumed stream repeats what the list already held
        self._known[key] = version
        return (Event("MODIFIED" if known is not None and known[0] == version[0] else "ADDED", item),)


def _identity(item: Mapping[str, Any]) -> tuple[tuple[str, str], tuple[str, str]]:
    metadata = item["metadata"]
    return (
        (metadata.get("namespace", ""), metadata["name"]),
        (metadata.get("uid", ""), metadata.get("resourceVersion", "")),
    )
