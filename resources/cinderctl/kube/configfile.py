"""One kubeconfig file of the user's: read whole or not at all, changed in the lines that must change, replaced at
once.
"""

from __future__ import annotations

import base64
import copy
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import read_bytes, remove_file, storage_errors, write_atomic
from cinderctl.kube.yamledit import UnreadableYamlError, edited, parse

__all__ = [
    "LISTS",
    "MARK",
    "ConfigFile",
    "CorruptConfigError",
    "ForeignEntryError",
    "decoded",
    "encoded",
    "mark_of",
]

MARK = "cinder.crit.sh"
"""Name of the extension that says an entry is ours."""
LISTS: Mapping[str, str] = {"cluster": "clusters", "context": "contexts", "user": "users"}


class CorruptConfigError(CinderError):
    """A kubeconfig that cannot be read; it is left as it is."""


class ForeignEntryError(CinderError):
    """Entries of our names that are not ours; they are left as they are."""


# Keys of an entry that mean the same as ours by other means: they would contradict what we put in.
_REPLACED = {
    "cluster": ("certificate-authority", "insecure-skip-tls-verify"),
    "user": ("client-certificate", "client-key", "token", "tokenFile", "exec", "auth-provider", "username", "password"),
    "context": ("namespace",),
}


class ConfigFile:
    """One kubeconfig file: its text as read, its value as it shall be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors("read", path):
            try:
                self._target = path.resolve()  # what a symbolic link leads to is written, the link stays
            except RuntimeError as problem:
                raise CorruptConfigError(f"{path} is a symbolic link that leads to itself") from problem
        content = read_bytes(self._target)
        self.exists = content is not None
        self._text = _text(path, content or b"")
        self.data: dict[str, Any] = _mapping(path, self._text)
        self._before = copy.deepcopy(self.data)

    def find(self, part: str, name: str) -> dict[str, Any] | None:
        return next((i for i in self.data.get(LISTS[part]) or () if i.get("name") == name), None)

    def put(self, part: str, name: str, wanted: Mapping[str, Any]) -> None:
        item = self.find(part, name)
        if item is None:
            for key, value in {"apiVersion": "v1", "kind": "Config"}.items():
                self.data.setdefault(key, value)
            self.data[LISTS[part]] = [*(self.data.get(LISTS[part]) or ()), {part: dict(wanted), "name": name}]
            return
        body: dict[str, Any] = item.get(part) or {}
        extensions = [e for e in body.get("extensions") or () if not isinstance(e, dict) or e.get("name") != MARK]
        item[part] = {**body, **wanted, "extensions": [*extensions, *wanted["extensions"]]}
        for key in _REPLACED[part]:
            if key not in wanted:
                item[part].pop(key, None)

    def drop(self, part: str, name: str) -> None:
        self.data[LISTS[part]] = [item for item in self.data[LISTS[part]] if item.get("name") != name]

    def is_empty(self) -> bool:
        said = {key for key, value in self.data.items() if value and key not in {"apiVersion", "kind", "preferences"}}
        return self.exists and not said

    def drop_file(self) -> bool:
        remove_file(self._target)
        return True

    def save(self) -> bool:
        if self.data == self._before:
            return False
        try:
            text = edited(self._text, self.data)
        except UnreadableYamlError as problem:
            raise CorruptConfigError(f"{self.path} cannot be changed safely", detail=str(problem)) from problem
        with storage_errors("write", self.path):
            self._target.parent.mkdir(0o700, parents=True, exist_ok=True)
            mode = stat.S_IMODE(self._target.stat().st_mode) if self.exists else 0o600
        write_atomic(self._target, text.encode(), mode)
        return True


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as problem:
        raise _corrupt(path, f"not UTF-8 text: {problem.reason} at byte {problem.start}") from problem


def _mapping(path: Path, text: str) -> dict[str, Any]:
    try:
        value = parse(text)
    except UnreadableYamlError as problem:
        raise _corrupt(path, str(problem)) from problem
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _corrupt(path, "not a mapping of clusters, contexts and users")
    for key in LISTS.values():
        items = value.get(key) or []
        if not isinstance(items, list) or not all(_is_entry(item) for item in items):
            raise _corrupt(path, f"`{key}` is not a list of entries with names")
    return value


def _is_entry(item: Any) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        return False
    bodies = [item.get(part) or {} for part in LISTS]
    return all(isinstance(body, dict) and isinstance(body.get("extensions") or [], list) for body in bodies)


def _corrupt(path: Path, why: str) -> CorruptConfigError:
    return CorruptConfigError(
        f"{path} is no kubeconfig", detail=why, hint="repair it, or name another file; it was not changed"
    )


def mark_of(body: Any) -> Mapping[str, Any] | None:
    for entry in body.get("extensions") or () if isinstance(body, Mapping) else ():
        if isinstance(entry, Mapping) and entry.get("name") == MARK:
            extension = entry.get("extension")
            return extension if isinstance(extension, Mapping) else {}
    return None


def encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(str(text or ""))
    except ValueError:
        return b""
