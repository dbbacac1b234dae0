"""What `cinderctl binaries list` shows: the binaries asked for, and the other versions that the cache still holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cinderctl.binaries.catalog import BINARIES, DEFAULT, PROJECTS, binaries_named, version_of
from cinderctl.binaries.locate import Located, locate
from cinderctl.binaries.sources import Sources
from cinderctl.host.files import storage_errors

__all__ = ["Row", "list_binaries"]


@dataclass(frozen=True, slots=True)
class Row:
    """`size` in bytes, 0 when there is no usable file. `state` is a `State` in words. `wanted`: part of what was asked
    for, not merely another version in the cache."""

    name: str
    version: str
    state: str
    path: str
    size: int
    origin: str
    detail: str
    wanted: bool


def list_binaries(
    sources: Sources,
    *,
    kubernetes_version: str,
    names: Iterable[str] = DEFAULT,
    verify: bool = False,
    other_versions: bool = True,
) -> tuple[Row, ...]:
    """One row per binary asked for, then the other files in the cache. `verify` hashes every cached file.

    Raises: UsageError for unknown names and versions, StorageError.
    """
    binaries = binaries_named(names)
    located = [locate(b, sources, version_of(b, kubernetes_version), verify=verify) for b in binaries]
    rows = [_row(item, wanted=True) for item in located]
    if other_versions:
        shown = {item.path for item in located}
        rows += [_row(item, wanted=False) for item in _cached(sources, verify) if item.path not in shown]
    return tuple(rows)


def _cached(sources: Sources, verify: bool) -> list[Located]:
    without_directory = Sources(sources.cache, target=sources.target)
    found = []
    for project in PROJECTS.values():
        for version in _versions(sources.cache / project.name):
            for binary in BINARIES.values():
                path = sources.cache_directory(project, version) / binary.name
                if binary.project is project and path.exists():
                    found.append(locate(binary, without_directory, version, verify=verify))
    return found


def _versions(directory: Path) -> list[str]:
    with storage_errors("read", directory):
        return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []


def _row(item: Located, *, wanted: bool) -> Row:
    return Row(
        item.name,
        item.reported or item.version,
        str(item.state),
        str(item.path),
        item.size,
        item.origin,
        item.detail,
        wanted,
    )
