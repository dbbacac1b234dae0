"""Upstream's binaries of one version, in the cache that all clusters share.

Owned in the world: nothing but the sidecar record; the files are a cache, found by their stamps, and stay when the
cluster goes. They come from a directory the user names, the cache, the official downloads, or a build, in this order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cinderctl.binaries.ensure import ensure, find
from cinderctl.binaries.sources import Sources
from cinderctl.core.address import Address
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.records import delete_record, list_records, read_record, write_record
from cinderctl.plans.model import FieldChange
from cinderctl.resources.context import Context

__all__ = ["BinariesInputs", "BinariesKind"]

_CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True, slots=True)
class BinariesInputs:
    kubernetes_version: str = input_field("Kubernetes version, as v1.36.3")
    names: tuple[str, ...] = input_field("Binaries that must be there")
    directory: str = input_field("A directory of yours that is looked at first", default="")


class BinariesKind:
    kind: ClassVar[str] = "binaries"
    inputs: ClassVar[type[Any]] = BinariesInputs
    deadline: ClassVar[float] = 3600.0  # a first build on a small machine takes a quarter of an hour
    parallelism: ClassVar[int] = 1
    volatile_outputs: ClassVar[frozenset[str]] = frozenset({"control_plane", "directory", "registry"})

    def __init__(self, context: Context, sources: Sources) -> None:
        self._context = context
        self._sources = sources

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._context.cluster.records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: BinariesInputs | None, scope: Scope) -> Observation:
        del want, scope
        record = read_record(self._context.cluster.records, address)
        if record is None:
            return Observation.absent(address)
        names = [str(name) for name in record.inputs["names"]]
        version = str(record.inputs["kubernetes_version"])
        sources = self._sources.with_directory(str(record.inputs.get("directory", "")))
        found = find(names, sources, kubernetes_version=version)
        attributes = {"kubernetes_version": version, "names": [name for name in names if name in found]}
        return Observation(address, Existence.PRESENT, attributes, _outputs(found), record)

    def create(self, address: Address, want: BinariesInputs, step: Step) -> Mapping[str, Any]:
        del address
        found = ensure(
            want.names,
            self._sources.with_directory(want.directory),
            kubernetes_version=want.kubernetes_version,
            progress=lambda message, done, total: step.progress(message, done=done, total=total),
            check_cancelled=step.check_cancelled,
        )
        write_record(self._context.cluster.records, step.record)
        return _outputs(found)

    def update(
        self, address: Address, want: BinariesInputs, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        del have, changes
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        del step
        delete_record(self._context.cluster.records, have.address)


def _outputs(found: Mapping[str, Path]) -> dict[str, Any]:
    """Every binary's path by its name, those of the control plane together, and the directory that kubectl is in."""
    outputs: dict[str, Any] = {name: str(path) for name, path in found.items()}
    if all(name in found for name in _CONTROL_PLANE):
        outputs["control_plane"] = {name: str(found[name]) for name in _CONTROL_PLANE}
    if "kubectl" in found:
        outputs["directory"] = str(found["kubectl"].parent)
    return outputs
