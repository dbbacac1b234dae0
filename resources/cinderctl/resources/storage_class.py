"""The default StorageClass and, on the process provider, the provisioner behind it.

Owned: the StorageClass object and the `local-path` task in the supervisor; volumes lie below the cluster's state
directory and go with it. Semantics and name as rancher.io/local-path, so that manifests written for kind and k3s work
unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.components import Component
from cinderctl.host.control import acknowledge, read_status
from cinderctl.host.files import ensure_dir, remove_tree
from cinderctl.host.records import delete_record, list_records, read_record, write_record
from cinderctl.localpath.provisioner import storage_class
from cinderctl.plans.model import FieldChange
from cinderctl.resources.cluster_api import ClusterApi, admin_endpoint, server_of
from cinderctl.resources.context import Context, component_ready, run_components, withdraw_components
from cinderctl.resources.objects import apply_object, delete_object, observe_object

__all__ = ["StorageClassInputs", "StorageClassKind"]

_COMPONENT = "local-path"


@dataclass(frozen=True, slots=True)
class StorageClassInputs:
    object: Mapping[str, Any] = input_field("The StorageClass", default={})
    provisioner: str = input_field("Always `ready`: volumes are made", default="ready")


class StorageClassKind:
    kind: ClassVar[str] = "storage_class"
    inputs: ClassVar[type[Any]] = StorageClassInputs
    deadline: ClassVar[float] = 30.0
    parallelism: ClassVar[int] = 1
    volatile_outputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context, api: ClusterApi) -> None:
        self._context = context
        self._cluster = context.cluster
        self._api = api

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._cluster.records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: StorageClassInputs | None, scope: Scope) -> Observation:
        record = read_record(self._cluster.records, address)
        wanted = want.object if want is not None else record.inputs["object"] if record else storage_class(address.name)
        seen = observe_object(self._api.client(), address, wanted, record, scope.cluster)
        if seen.existence is not Existence.PRESENT or seen.foreign:
            return seen
        status = read_status(self._cluster).get(_COMPONENT)
        attributes = {**seen.attributes, "provisioner": status.state if status else "missing"}
        return Observation(
            address, Existence.PRESENT, attributes, seen.outputs, seen.record, changed_by=seen.changed_by
        )

    def create(self, address: Address, want: StorageClassInputs, step: Step) -> Mapping[str, Any]:
        del address
        write_record(self._cluster.records, step.record)
        ensure_dir(self._cluster.local_path)
        server = server_of(self._cluster)
        config = {
            "endpoint": admin_endpoint(self._cluster, server).to_json(),
            "directory": str(self._cluster.local_path),
        }
        component = Component(name=_COMPONENT, task=_COMPONENT, config=config, after=("kube-apiserver",))
        run_components(self._context, self._cluster, [component])
        outputs = apply_object(self._api.require(), want.object, step, self._context.name)
        step.wait_until(
            lambda: component_ready(self._cluster, _COMPONENT),
            "the local-path provisioner watches for claims",
            interval=0.02,
        )
        acknowledge(self._cluster, _COMPONENT)
        return outputs

    def update(
        self, address: Address, want: StorageClassInputs, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        del have, changes
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        delete_object(
            self._api.client(),
            step.record.inputs["object"],
            str(have.outputs.get("uid", "")),
            step,
            wait=not self._context.destroying,
        )
        withdraw_components(self._cluster, [_COMPONENT])
        remove_tree(self._cluster.local_path, below=self._cluster.root)
        delete_record(self._cluster.records, have.address)
