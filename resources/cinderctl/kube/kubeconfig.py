"""Our entries in the user's kubeconfig: put in, seen, taken out; nothing else in the file moves.

Files and precedence are kubectl's: an explicit file, else those of KUBECONFIG, else `~/.kube/config`; an entry is
changed where it lives, a new one goes to the first file that exists (to the last one named when none does); the
current context is that of the first file that says one. Symbolic links are followed and stay, modes stay, new files
are 0600. Ownership is an extension named `cinder.crit.sh` in each entry; an entry of the same name without it is
the user's, unless it is the same cluster or certificate.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cinderctl.host.files import storage_errors
from cinderctl.kube.configfile import (
    LISTS,
    MARK,
    ConfigFile,
    CorruptConfigError,
    ForeignEntryError,
    decoded,
    encoded,
    mark_of,
)
from cinderctl.kube.configlock import config_locks

__all__ = [
    "MARK",
    "CorruptConfigError",
    "Entries",
    "ForeignEntryError",
    "Found",
    "MergeResult",
    "Names",
    "config_files",
    "merge",
    "names_for",
    "read_entry",
    "remove",
]

_PATIENCE = 10.0  # seconds to wait for another's lock


@dataclass(frozen=True, slots=True)
class Names:
    """`owner` tells clusters of the same name apart that different state directories hold; compared with the mark."""

    cluster: str
    context: str
    user: str
    owner: str = ""

    def of(self, part: str) -> str:
        """`part` is cluster, context or user."""
        return {"cluster": self.cluster, "context": self.context, "user": self.user}[part]


@dataclass(frozen=True, slots=True)
class Entries:
    """What is put in. Certificates and key are PEM; `namespace` is the context's, "" for none."""

    cluster: str
    context: str
    user: str
    server: str
    ca_data: bytes
    cert_data: bytes
    key_data: bytes = field(repr=False)
    namespace: str = ""
    owner: str = ""

    @property
    def names(self) -> Names:
        return Names(self.cluster, self.context, self.user, self.owner)


@dataclass(frozen=True, slots=True)
class Found:
    """Entries as they are. `foreign` says in words what is not ours; `missing` lists which of the three are not."""

    path: Path
    server: str
    ca_data: bytes
    cert_data: bytes
    key_data: bytes = field(repr=False)
    namespace: str
    current: bool
    current_context: str
    foreign: str = ""
    missing: tuple[str, ...] = ()
    linked: bool = True
    """The context points to our cluster and our user."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """`path` is the file that holds the context; `previous_context` what was current before; `created`: a new file."""

    path: Path
    previous_context: str
    created: bool
    changed: bool


def names_for(cluster: str, owner: str = "") -> Names:
    """cinder's names, with a user of its own for each cluster."""
    return Names(cluster, f"kubernetes-admin@{cluster}", f"kubernetes-admin@{cluster}", owner)


def config_files(paths_env: str | None, home: Path, explicit: Path | None) -> list[Path]:
    """The files kubectl would load, in order of precedence; `paths_env` is the value of KUBECONFIG."""
    if explicit is not None:
        return [explicit]
    named = [Path(part) for part in (paths_env or "").split(os.pathsep) if part]
    return list(dict.fromkeys(named)) or [home / ".kube" / "config"]


def merge(
    paths_env: str | None,
    home: Path,
    explicit: Path | None,
    entries: Entries,
    set_current: bool,
    *,
    patience: float = _PATIENCE,
) -> MergeResult:
    """Put our three entries in, or bring them up to date; fields of others in them stay.

    Raises ForeignEntryError, CorruptConfigError, LockedError, StorageError; nothing is changed then.
    """
    files = config_files(paths_env, home, explicit)
    _make_folder(files)
    with config_locks(files, patience=patience):
        configs = _load(files)
        _refuse_foreign(configs, entries)
        before = _current(configs)
        default = next((c for c in configs if c.exists), configs[-1])
        holders = []
        for part in LISTS:
            holder = next((c for c in configs if c.find(part, entries.names.of(part)) is not None), default)
            holder.put(part, entries.names.of(part), _wanted(part, entries))
            holders.append(holder)
        if set_current and before != entries.context:
            sayer = next((c for c in configs if c.data.get("current-context")), holders[1])
            sayer.data["current-context"] = entries.context
        created = not holders[1].exists
        changed = [config.save() for config in configs]  # every file, also when the first already changed
    return MergeResult(holders[1].path, before, created, any(changed))


def read_entry(paths_env: str | None, home: Path, explicit: Path | None, names: Names | Entries) -> Found | None:
    """What is there under our names; None when nothing is. With `Entries`, same data counts as ours without the mark.

    Raises CorruptConfigError, StorageError.
    """
    configs = _load(config_files(paths_env, home, explicit))
    wanted = names.names if isinstance(names, Entries) else names
    items = {part: _lookup(configs, part, wanted.of(part)) for part in LISTS}
    if not any(items.values()):
        return None
    cluster, context, user = ((items[part] or {}).get(part) or {} for part in ("cluster", "context", "user"))
    holder = next(c for part in ("context", "cluster", "user") for c in configs if c.find(part, wanted.of(part)))
    return Found(
        path=holder.path,
        server=str(cluster.get("server") or ""),
        ca_data=decoded(cluster.get("certificate-authority-data")),
        cert_data=decoded(user.get("client-certificate-data")),
        key_data=decoded(user.get("client-key-data")),
        namespace=str(context.get("namespace") or ""),
        current=_current(configs) == wanted.context,
        current_context=_current(configs),
        foreign="; ".join(_foreign(configs, names)),
        missing=tuple(part for part, item in items.items() if not item),
        linked=(context.get("cluster"), context.get("user")) == (wanted.cluster, wanted.user),
    )


def remove(
    paths_env: str | None,
    home: Path,
    explicit: Path | None,
    names: Names | Entries,
    *,
    restore: str = "",
    created: bool = False,
    patience: float = _PATIENCE,
) -> bool:
    """Take our entries out of every file; entries that are not ours stay. True when something changed.

    Where our context is current, `restore` becomes current again if it is still there, else none is. `created`: the
    file was ours from the start and goes when nothing is left in it. Raises as `merge`.
    """
    files = config_files(paths_env, home, explicit)
    wanted = names.names if isinstance(names, Entries) else names
    with config_locks(files, patience=patience):
        configs = _load(files)
        for config in configs:
            for part in LISTS:
                item = config.find(part, wanted.of(part))
                if item is not None and _is_ours(part, item, names):
                    config.drop(part, wanted.of(part))
        if _lookup(configs, "context", wanted.context) is None:
            back = restore if restore and _lookup(configs, "context", restore) is not None else ""
            for config in configs:
                if config.data.get("current-context") == wanted.context:
                    config.data["current-context"] = back
        changed = [config.drop_file() if created and config.is_empty() else config.save() for config in configs]
    return any(changed)


def _wanted(part: str, entries: Entries) -> dict[str, Any]:
    """The body of one entry, keys in the order kubectl writes them."""
    mark = [{"extension": {"cluster": entries.cluster, "owner": entries.owner}, "name": MARK}]
    match part:
        case "cluster":
            return {
                "certificate-authority-data": encoded(entries.ca_data),
                "extensions": mark,
                "server": entries.server,
            }
        case "user":
            return {
                "client-certificate-data": encoded(entries.cert_data),
                "client-key-data": encoded(entries.key_data),
                "extensions": mark,
            }
    namespace = {"namespace": entries.namespace} if entries.namespace else {}
    return {"cluster": entries.cluster, "extensions": mark, **namespace, "user": entries.user}


def _make_folder(files: list[Path]) -> None:
    """The folder of a first kubeconfig, so that its lock has a place."""
    if not any(file.exists() for file in files):
        with storage_errors("make the directory", files[-1].parent):
            files[-1].parent.mkdir(0o700, parents=True, exist_ok=True)


def _load(files: list[Path]) -> list[ConfigFile]:
    return [ConfigFile(file) for file in files]


def _current(configs: list[ConfigFile]) -> str:
    return next((str(c.data["current-context"]) for c in configs if c.data.get("current-context")), "")


def _lookup(configs: list[ConfigFile], part: str, name: str) -> dict[str, Any] | None:
    return next((item for config in configs if (item := config.find(part, name)) is not None), None)


def _refuse_foreign(configs: list[ConfigFile], entries: Entries) -> None:
    foreign = _foreign(configs, entries)
    if foreign:
        raise ForeignEntryError(
            "the kubeconfig holds entries of the same name that are not ours",
            detail="; ".join(foreign),
            hint="rename them (`kubectl config rename-context`), give the cluster another name, or name another file",
        )


def _foreign(configs: list[ConfigFile], names: Names | Entries) -> list[str]:
    wanted = names.names if isinstance(names, Entries) else names
    found = []
    for part in LISTS:
        for config in configs:
            item = config.find(part, wanted.of(part))
            if item is not None and not _is_ours(part, item, names):
                found.append(f"{part} {wanted.of(part)!r} in {config.path}{_whose(part, item)}")
    return found


def _is_ours(part: str, item: Mapping[str, Any], names: Names | Entries) -> bool:
    body: Mapping[str, Any] = item.get(part) or {}
    mark = mark_of(body)
    if mark is not None:
        owner = str(mark.get("owner") or "")
        return not owner or not names.owner or owner == names.owner
    if part == "context":
        return (body.get("cluster"), body.get("user")) == (names.cluster, names.user)
    if not isinstance(names, Entries):
        return False
    if part == "cluster":
        return decoded(body.get("certificate-authority-data")) == names.ca_data
    return decoded(body.get("client-certificate-data")) == names.cert_data


def _whose(part: str, item: Mapping[str, Any]) -> str:
    owner = (mark_of(item.get(part)) or {}).get("owner")
    return f" (of the cluster kept in {owner})" if owner else ""
