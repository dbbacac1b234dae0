"""A file of the spec's `files`, below the cluster's own `files/` directory: the host's paths are never written.

Owned: the file, with a sidecar record. Content is compared by digest, so it shows in no plan.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError
from cinderctl.core.digest import sha256_of
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.files import ensure_dir, read_bytes, remove_file, write_atomic
from cinderctl.host.records import delete_record, list_records, read_record, write_record
from cinderctl.plans.model import FieldChange
from cinderctl.resources.context import Context

__all__ = ["FileInputs", "FileKind"]


@dataclass(frozen=True, slots=True)
class FileInputs:
    path: str = input_field(
        "Absolute path in the node; here it lies below the cluster's files directory", replaces=True
    )
    digest: str = input_field("sha256 of the content")
    permissions: str = input_field("Octal mode", default="0644")


class FileKind:
    """`contents`: digest → bytes, as the catalog read them; kept out of the inputs so that no plan holds a file."""

    kind: ClassVar[str] = "file"
    inputs: ClassVar[type[Any]] = FileInputs
    deadline: ClassVar[float] = 10.0
    parallelism: ClassVar[int] = 1  # files share directories: one step may remove what another has just made sure of
    volatile_outputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context, contents: Mapping[str, bytes]) -> None:
        self._root = context.cluster.files
        self._records = context.cluster.records
        self._contents = contents

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: FileInputs | None, scope: Scope) -> Observation:
        del want, scope
        record = read_record(self._records, address)
        if record is None:
            return Observation.absent(address)
        path = self._path(str(record.inputs["path"]))
        content = read_bytes(path)
        if content is None:
            return Observation.absent(address)
        mode = f"{stat.S_IMODE(path.stat().st_mode):04o}"
        attributes = {"path": record.inputs["path"], "digest": sha256_of(content), "permissions": mode}
        return Observation(address, Existence.PRESENT, attributes, {"path": str(path)}, record)

    def create(self, address: Address, want: FileInputs, step: Step) -> Mapping[str, Any]:
        del address
        write_record(self._records, step.record)
        path = self._path(want.path)
        ensure_dir(path.parent)
        write_atomic(path, self._contents[want.digest], mode=int(want.permissions, 8))
        return {"path": str(path)}

    def update(
        self, address: Address, want: FileInputs, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        del have, changes
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        path = self._path(str(step.record.inputs["path"]))
        remove_file(path)
        for parent in path.parents:
            if parent == self._root or not parent.is_relative_to(self._root) or any(parent.iterdir()):
                break
            parent.rmdir()
        delete_record(self._records, have.address)

    def _path(self, node_path: str) -> Path:
        """Raises: CinderError for a path that leads out of the files directory."""
        parts = PurePosixPath(node_path).parts[1:]
        if not parts or ".." in parts:
            raise CinderError(f"not a file path: {node_path}", hint="write an absolute path without `..`")
        return self._root.joinpath(*parts)
