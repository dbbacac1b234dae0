"""Ports and loopback addresses of all clusters of a user: chosen once, recorded, given to nobody else.

Kept in `_host/ports.json` and `_host/blocks.json` under one lock; a port also has to be free on the machine when it is
chosen. Without a wish, ports come from below the range the kernel takes for outgoing connections (ip_local_port_range,
32768 and up): a stopped cluster then finds its ports free again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import CorruptFileError, ensure_dir, read_json, remove_file, storage_errors, write_json

__all__ = ["allocate_block", "free_port", "is_bound", "port_owner", "release_block", "release_ports"]

_FIRST, _LAST = 20000, 29999
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # compared with, never bound
_LOCK_PATIENCE = 30.0


def free_port(host_dir: Path, key: str, preferred: int | None = None, address: str = "127.0.0.1") -> int:
    """The port recorded under `key`, or a new one: `preferred` when it is free, else any that nobody has.

    Raises: CinderError when none is left, StorageError, CorruptFileError.
    """
    with _locked(host_dir):
        ports = _load(host_dir / "ports.json", "port")
        known = ports.get(key)
        if known is not None and known["address"] == address:
            return int(known["port"])
        taken = {
            int(entry["port"])
            for other, entry in ports.items()
            if other != key and (entry["address"] == address or _WILDCARDS & {entry["address"], address})
        }
        for port in _candidates(key, preferred):
            if port not in taken and not is_bound(address, port):
                write_json(host_dir / "ports.json", {**ports, key: {"address": address, "port": port}})
                return port
    raise CinderError(f"no free port on {address}", detail=f"All from {_FIRST} to {_LAST} are in use or recorded")


def release_ports(host_dir: Path, key_prefix: str) -> None:
    """Forget ports recorded under keys that begin so. Absence is success. Raises: StorageError, CorruptFileError."""
    path = host_dir / "ports.json"
    if not path.exists():
        return
    with _locked(host_dir):
        ports = _load(path, "port")
        kept = {key: entry for key, entry in ports.items() if not key.startswith(key_prefix)}
        if kept != ports:
            _store(path, kept)


def allocate_block(
    host_dir: Path, cluster: str, *, preferred: int = 244, in_use: Callable[[int], bool] = lambda _block: False
) -> int:
    """Second octet B of the cluster's loopback addresses 127.B.0.0/16: the recorded one, else the first free one going
    down from `preferred`, then the ones above. Raises: CinderError, StorageError, CorruptFileError."""
    with _locked(host_dir):
        blocks = _load(host_dir / "blocks.json", "block")
        if cluster in blocks:
            return int(blocks[cluster]["block"])
        taken = {int(entry["block"]) for entry in blocks.values()}
        # Not 127.0: localhost, the systemd resolver and the like live there.
        for block in chain(range(preferred, 0, -1), range(preferred + 1, 256)):
            if block not in taken and not in_use(block):
                write_json(host_dir / "blocks.json", {**blocks, cluster: {"block": block}})
                return block
    raise CinderError("no free block of loopback addresses", hint="destroy a cluster that is not used any more")


def release_block(host_dir: Path, cluster: str) -> None:
    """Absence is success. Raises: StorageError, CorruptFileError."""
    path = host_dir / "blocks.json"
    if not path.exists():
        return
    with _locked(host_dir):
        blocks = _load(path, "block")
        if blocks.pop(cluster, None) is not None:
            _store(path, blocks)


def is_bound(address: str, port: int) -> bool:
    """Whether a TCP server could not listen there now. Raises: CinderError when that is not ours to try."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do it: connections that only linger from an earlier server are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            if error.errno == errno.EACCES:
                return True  # a privileged port: not for us, whoever has it
            raise CinderError(f"cannot listen on {address}:{port}: {error.strerror or error}") from error
    return False


def port_owner(address: str, port: int) -> str:
    """Who listens there, as `pid 123 (nginx)` or "another user's process"; "" when nobody does. For error texts."""
    import psutil  # noqa: PLC0415  # only when something is wrong already

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            if connection.laddr.port != port or connection.laddr.ip not in {address, *_WILDCARDS}:
                continue
            if connection.pid:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        return "an unknown process"
    return "another user's process" if is_bound(address, port) else ""


def _candidates(key: str, preferred: int | None) -> Iterator[int]:
    if preferred:
        yield preferred
    size = _LAST - _FIRST + 1
    start = zlib.crc32(key.encode()) % size  # the same key starts at the same place: repeatable, and few collisions
    for offset in range(size):
        yield _FIRST + (start + offset) % size


def _store(path: Path, entries: Mapping[str, Any]) -> None:
    """The last entry takes the file and its directory along, so that a user without clusters has neither."""
    if entries:
        write_json(path, dict(entries))
        return
    remove_file(path)
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


@contextmanager
def _locked(host_dir: Path) -> Iterator[None]:
    """The lock is on the state directory itself: a lock file could not be removed without two runs holding one each."""
    ensure_dir(host_dir.parent)
    with storage_errors("open", host_dir.parent):
        directory = os.open(host_dir.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise CinderError(
                        "another run holds the allocations of ports",
                        detail=f"{host_dir.parent} has been locked for {_LOCK_PATIENCE:g} s",
                    ) from error
                time.sleep(0.01)
        ensure_dir(host_dir)
        yield
    finally:
        os.close(directory)


def _load(path: Path, field: str) -> dict[str, Mapping[str, Any]]:
    value = read_json(path)
    if value is None:
        return {}
    if isinstance(value, dict) and all(isinstance(v, dict) and isinstance(v.get(field), int) for v in value.values()):
        return value
    raise CorruptFileError(path, "not the allocations we wrote")
