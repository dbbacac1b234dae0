"""Having binaries: from the user's directory, the shared cache, the official downloads, or a build, in this order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cinderctl.binaries.callbacks import CheckCancelled, Progress, never_cancelled, silent
from cinderctl.binaries.catalog import binaries_named, version_of
from cinderctl.binaries.errors import BinaryError, VersionMismatchError
from cinderctl.binaries.locate import Located, find, locate
from cinderctl.binaries.sources import Sources
from cinderctl.binaries.stamps import State

__all__ = ["ensure", "find"]


def ensure(
    names: Iterable[str],
    sources: Sources,
    *,
    kubernetes_version: str,
    progress: Progress = silent,
    check_cancelled: CheckCancelled = never_cancelled,
) -> dict[str, Path]:
    """Paths of all the binaries named, fetching what is missing or damaged.

    `progress(message, done, total)` counts bytes of a download, modules and packages of a build; both None for a mere
    message. `check_cancelled` is called often and may raise: what runs is then ended and what arrived is kept.
    Raises: UsageError for unknown names or versions; BinaryError for a directory that is not there;
    VersionMismatchError; UnavailableError when every source failed, for all projects at once; StorageError when the
    cache cannot be written.
    """
    binaries = binaries_named(names)
    if sources.directory and not sources.directory.is_dir():
        raise BinaryError(
            f"no such directory: {sources.directory}", hint="it was named as the one of your own binaries"
        )
    located = {b.name: locate(b, sources, version_of(b, kubernetes_version)) for b in binaries}
    _refuse_unusable(located.values(), sources)
    missing = [binary for binary in binaries if located[binary.name].state is not State.READY]
    if missing:
        from cinderctl.binaries.fetch import fetch  # noqa: PLC0415  urllib3 and filelock are not needed to find files

        fetch(
            [(binary, located[binary.name].version) for binary in missing],
            sources,
            progress=progress,
            check_cancelled=check_cancelled,
        )
    return {b.name: locate(b, sources, version_of(b, kubernetes_version)).path for b in binaries}


def _refuse_unusable(located: Iterable[Located], sources: Sources) -> None:
    """What the user put into his directory is meant: another version or a broken file is an error, not passed over."""
    unusable = [item for item in located if item.path.parent == sources.directory and item.state is not State.READY]
    if any(item.state is State.WRONG_VERSION for item in unusable):
        summary, hint = (
            f"{sources.directory} holds other versions than the ones asked for",
            "ask for the version that is there (kubernetesVersion), or name another directory",
        )
    else:
        summary, hint = f"{sources.directory} holds files that cannot be used", "repair them, or name another directory"
    if unusable:
        detail = "\n".join(f"{item.path}: {item.detail}" for item in unusable)
        raise VersionMismatchError(summary, detail=detail, hint=hint)
