"""What a container sees of the pod's volumes. WASI knows directories only, so a single file gets one of its own."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import ensure_dir, remove_tree, storage_errors
from cinderctl.wasmnode.beneath import beneath
from cinderctl.wasmnode.env import ContainerConfigError, expand
from cinderctl.wasmnode.payload import check_relative
from cinderctl.wasmnode.volumes import Volume
from cinderctl.wasmrun.protocol import Mount

__all__ = ["mounts_of"]


def mounts_of(
    container: Mapping[str, Any], volumes: Mapping[str, Volume], env: Mapping[str, str], directory: Path
) -> tuple[Mount, ...]:
    """`directory` is the pod's; `<directory>/mounts/<container>` is made anew for single files. Blocking.

    Raises: ContainerConfigError for a mount that cannot be; StorageError.
    """
    mounts: dict[str, Mount] = {}
    files: list[tuple[str, Path, bool]] = []
    for mount in container.get("volumeMounts") or ():
        guest = posixpath.normpath(str(mount["mountPath"]))
        volume = volumes.get(str(mount["name"]))
        if volume is None:
            raise ContainerConfigError(f"volumeMount names volume {mount['name']!r}, which the pod does not have")
        read_only = volume.read_only or bool(mount.get("readOnly"))
        host, is_directory = _host(mount, volume, env, read_only)
        if is_directory:
            mounts[guest] = Mount(str(host), guest, read_only)
        else:
            files.append((guest, host, read_only))
    mounts.update(_single_files(files, mounts, directory / "mounts" / str(container["name"]), directory))
    return tuple(mounts.values())


def _host(mount: Mapping[str, Any], volume: Volume, env: Mapping[str, str], read_only: bool) -> tuple[Path, bool]:
    sub = expand(str(mount["subPathExpr"]), env) if mount.get("subPathExpr") else str(mount.get("subPath") or "")
    if not sub:
        return volume.path, not volume.is_file
    try:
        if not volume.ours:
            return beneath(volume.path, sub, create=not read_only)
        path = volume.path.joinpath(*check_relative(sub).parts).resolve()
    except CinderError as error:
        raise ContainerConfigError(f'failed to prepare subPath for volumeMount "{volume.name}": {error}') from error
    if not path.exists():
        raise ContainerConfigError(f'subPath {sub!r} of volume "{volume.name}" does not exist')
    return path, path.is_dir()


def _single_files(
    files: list[tuple[str, Path, bool]], taken: Mapping[str, Mount], place: Path, below: Path
) -> dict[str, Mount]:
    """A directory for each guest directory that holds single files: linked where the guest may write, else copied."""
    remove_tree(place, below=below)
    folders: dict[str, Mount] = {}
    for guest, host, read_only in files:
        folder, name = posixpath.split(guest)
        if folder in taken:
            raise ContainerConfigError(
                f"cannot mount the single file {guest}: {folder} is a volume already, and WASI knows only directories"
            )
        known = folders.get(folder)
        if known is not None and known.read_only != read_only:
            raise ContainerConfigError(f"files mounted in {folder} must all be read-only or all be writable")
        if known is None:
            known = folders[folder] = Mount(str(ensure_dir(place / str(len(folders)), 0o755)), folder, read_only)
        target = Path(known.host) / name
        with storage_errors("mount", host):
            if read_only:
                shutil.copyfile(host, target, follow_symlinks=False)
                shutil.copymode(host, target)
            else:
                os.link(host, target, follow_symlinks=False)
    return folders
