"""Compiled modules on disk, keyed by the module's digest and everything the code depends on.

wasmtime executes what a `.cwasm` file holds without looking, so: the directory is ours alone (0700), nothing in it
comes from outside, and a file counts only together with the checksum written beside it after it was complete. Verified
code is handed out as an unlinked memory file: what happens to the disk afterwards cannot reach a running guest.

    <sha256 of the wasm>-<key>.cwasm    compiled code
    <sha256 of the wasm>-<key>.json     {"blake2b", "size"} of it: its presence says that the code is complete
"""

from __future__ import annotations

import contextlib
import json
import os
from _blake2 import blake2b  # hashlib would load OpenSSL into the zygote: 4 MiB
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

__all__ = ["CompileCache", "cache_key", "store"]

# What is kept open of verified code: bytes, and descriptors.
_HELD, _HELD_FILES = 256 << 20, 64
_CHUNK = 1 << 20


class _Held(NamedTuple):
    fd: int
    size: int
    identity: tuple[int, ...]


def cache_key(*facts: str) -> str:
    """16 hex digits of what compiled code depends on: versions, CPU features, settings."""
    return blake2b("\n".join(facts).encode(), digest_size=8).hexdigest()


def store(directory: Path, digest: str, key: str, code: bytes) -> None:
    """Puts compiled code into the cache, complete or not at all. Raises OSError."""
    path, note = _paths(directory, digest, key)
    facts = {"blake2b": blake2b(code).hexdigest(), "size": len(code)}
    for target, data in ((path, code), (note, json.dumps(facts).encode())):
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            temporary.rename(target)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


class CompileCache:
    """The reading side, in the zygote. Keeps the most recently used modules open."""

    def __init__(self, directory: Path, key: str) -> None:
        """Makes the directory, or tightens it. Raises OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        self.directory, self.key = directory, key
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def lookup(self, digest: str) -> tuple[int, str]:
        """(descriptor of the verified code, still owned by the cache; what was wrong with the file) or (-1, ...).

        A file that does not match its checksum is removed, so that it is compiled again.
        """
        path, note = _paths(self.directory, digest, self.key)
        try:
            held = self._held[digest]
            if held.identity == _identity(path):
                self._held.move_to_end(digest)
                return held.fd, ""
            self._drop(digest)
        except (KeyError, OSError):
            self._drop(digest)
        try:
            facts = json.loads(note.read_bytes())
            fd, size, identity, checksum = _copy(path)
        except (OSError, ValueError):
            return -1, ""
        if not isinstance(facts, dict) or facts.get("blake2b") != checksum or facts.get("size") != size:
            os.close(fd)
            self.invalidate(digest)
            return -1, f"compiled code of {digest} was damaged on disk: removed, will be compiled again"
        self._held[digest] = _Held(fd, size, identity)
        while len(self._held) > _HELD_FILES or (len(self._held) > 1 and self._size() > _HELD):
            self._drop(next(iter(self._held)))
        return fd, ""

    def invalidate(self, digest: str) -> None:
        self._drop(digest)
        for path in _paths(self.directory, digest, self.key):
            with contextlib.suppress(OSError):
                path.unlink()

    def sweep(self) -> None:
        """Removes what compilers that were killed left behind, and code for other versions or machines of ours."""
        for path in self.directory.iterdir():
            if path.name.startswith(".") or (path.suffix in (".cwasm", ".json") and self.key not in path.name):
                with contextlib.suppress(OSError):
                    path.unlink()

    def close(self) -> None:
        for digest in list(self._held):
            self._drop(digest)

    def _size(self) -> int:
        return sum(held.size for held in self._held.values())

    def _drop(self, digest: str) -> None:
        held = self._held.pop(digest, None)
        if held is not None:
            os.close(held.fd)


def _paths(directory: Path, digest: str, key: str) -> tuple[Path, Path]:
    name = f"{digest.removeprefix('sha256:')}-{key}"
    return directory / f"{name}.cwasm", directory / f"{name}.json"


def _identity(path: Path) -> tuple[int, ...]:
    found = path.stat(follow_symlinks=False)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _copy(path: Path) -> tuple[int, int, tuple[int, ...], str]:
    """(memory file, size, identity of the file, checksum) of a file's content as read once. Raises OSError."""
    identity = _identity(path)
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        target = os.memfd_create(path.name, os.MFD_CLOEXEC)
        try:
            size, state = 0, blake2b()
            while data := os.read(source, _CHUNK):
                state.update(data)
                size += len(data)
                os.write(target, data)
        except OSError:
            os.close(target)
            raise
    finally:
        os.close(source)
    return target, size, identity, state.hexdigest()
