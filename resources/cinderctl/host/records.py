"""Sidecar records: what we leave beside host files, as labels and annotations are left on objects elsewhere.

One JSON file for each address: the record, and what else its kind wants to remember (`extra`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cinderctl.core.address import Address
from cinderctl.core.record import Record
from cinderctl.host.files import CorruptFileError, ensure_dir, read_json, remove_file, write_json

__all__ = ["delete_record", "list_records", "read_extra", "read_record", "write_record"]

_LONGEST = 200  # a file name holds 255 bytes, and the atomic write adds to it


def write_record(directory: Path, record: Record, extra: Mapping[str, Any] | None = None) -> None:
    """Replace the sidecar of the record's address. Raises: StorageError."""
    ensure_dir(directory)
    value = {"record": json.loads(record.to_json()), "extra": dict(extra or {})}
    write_json(_path(directory, record.address), value)


def read_record(directory: Path, address: Address) -> Record | None:
    """None when there is none. Raises: StorageError, CorruptFileError (never taken for "none")."""
    entry = _read(_path(directory, address))
    return entry[0] if entry else None


def read_extra(directory: Path, address: Address) -> dict[str, Any]:
    """What was kept beside the record; empty when there is none. Raises: StorageError, CorruptFileError."""
    entry = _read(_path(directory, address))
    return entry[1] if entry else {}


def delete_record(directory: Path, address: Address) -> None:
    """Absence is success. Raises: StorageError."""
    remove_file(_path(directory, address))


def list_records(directory: Path, kind: str | None = None) -> list[Record]:
    """All records, or those of one kind, sorted by address. Raises: StorageError, CorruptFileError."""
    if not directory.is_dir():
        return []
    entries = [_read(path) for path in directory.glob("[!.]*.json")]
    records = [entry[0] for entry in entries if entry]
    return sorted(
        (record for record in records if kind is None or record.address.kind == kind), key=lambda record: record.address
    )


def _path(directory: Path, address: Address) -> Path:
    name = quote(str(address), safe=" ,:=@")
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 33]}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return directory / f"{name}.json"


def _read(path: Path) -> tuple[Record, dict[str, Any]] | None:
    value = read_json(path)
    if value is None:
        return None
    try:
        return Record.from_json(json.dumps(value["record"])), dict(value["extra"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(path, f"not a record: {error}") from error
