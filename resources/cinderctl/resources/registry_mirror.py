"""One registry host and where nodes really go for it, as an entry of the cluster's `mirrors.json`.

Owned: that entry. Node agents read the file again when it changes, so a mirror is edited live and nothing restarts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.files import read_json, remove_file, write_json
from cinderctl.host.records import delete_record, list_records, read_record, write_record
from cinderctl.plans.model import FieldChange
from cinderctl.resources.context import Context

__all__ = ["RegistryMirrorInputs", "RegistryMirrorKind"]


@dataclass(frozen=True, slots=True)
class RegistryMirrorInputs:
    endpoints: tuple[str, ...] = input_field("Full URLs, tried in order")
    exclusive: bool = input_field("The host exists only through its endpoints: an alias", default=False)


class RegistryMirrorKind:
    """`parallelism` is 1: all mirrors share one file."""

    kind: ClassVar[str] = "registry_mirror"
    inputs: ClassVar[type[Any]] = RegistryMirrorInputs
    deadline: ClassVar[float] = 10.0
    parallelism: ClassVar[int] = 1
    volatile_outputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context) -> None:
        self._records = context.cluster.records
        self._file = context.mirrors_file

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: RegistryMirrorInputs | None, scope: Scope) -> Observation:
        del want, scope
        record = read_record(self._records, address)
        mirrors, exclusive = self._read()
        entry = mirrors.get(address.name)
        if record is None or entry is None:
            return Observation.absent(address)
        endpoints = [str(endpoint.get("url", "")) for endpoint in entry]
        attributes = {"endpoints": endpoints, "exclusive": address.name in exclusive}
        return Observation(address, Existence.PRESENT, attributes, {}, record)

    def create(self, address: Address, want: RegistryMirrorInputs, step: Step) -> Mapping[str, Any]:
        write_record(self._records, step.record)
        mirrors, exclusive = self._read()
        mirrors[address.name] = [{"url": url} for url in want.endpoints]
        self._write(mirrors, exclusive | {address.name} if want.exclusive else exclusive - {address.name})
        return {}

    def update(
        self,
        address: Address,
        want: RegistryMirrorInputs,
        have: Observation,
        changes: Sequence[FieldChange],
        step: Step,
    ) -> Mapping[str, Any]:
        del have, changes
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        del step
        mirrors, exclusive = self._read()
        mirrors.pop(have.address.name, None)
        self._write(mirrors, exclusive - {have.address.name})
        delete_record(self._records, have.address)

    def _read(self) -> tuple[dict[str, Any], set[str]]:
        value = read_json(self._file)
        if not isinstance(value, dict):
            return {}, set()
        return dict(value.get("mirrors", {})), set(value.get("exclusive", []))

    def _write(self, mirrors: Mapping[str, Any], exclusive: set[str]) -> None:
        if mirrors:
            write_json(self._file, {"mirrors": dict(sorted(mirrors.items())), "exclusive": sorted(exclusive)})
        else:
            remove_file(self._file)
