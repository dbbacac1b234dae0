"""Any Kubernetes object the user (or the catalog) declares.

Owned: the object, marked by our label and annotation, applied server-side with our field manager. Identity is
apiVersion, kind, namespace and name; the address repeats it, so that changing it plans another resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.engine.kinds import Observation, Scope, Step, input_field
from cinderctl.host.records import delete_record, list_records, read_record, write_record
from cinderctl.plans.model import FieldChange
from cinderctl.resources.cluster_api import ClusterApi
from cinderctl.resources.context import Context
from cinderctl.resources.objects import apply_object, delete_object, observe_object

__all__ = ["ManifestInputs", "ManifestKind"]


@dataclass(frozen=True, slots=True)
class ManifestInputs:
    object: Mapping[str, Any] = input_field("The object as it is applied; secret data are secrets")


class ManifestKind:
    kind: ClassVar[str] = "manifest"
    inputs: ClassVar[type[Any]] = ManifestInputs
    deadline: ClassVar[float] = 120.0
    parallelism: ClassVar[int] = 8
    volatile_outputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context, api: ClusterApi) -> None:
        self._context = context
        self._api = api
        self._records = context.cluster.records

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: ManifestInputs | None, scope: Scope) -> Observation:
        record = read_record(self._records, address)
        wanted = want.object if want is not None else record.inputs["object"] if record is not None else None
        if wanted is None:
            return Observation.absent(address)
        return observe_object(self._api.client(), address, wanted, record, scope.cluster)

    def create(self, address: Address, want: ManifestInputs, step: Step) -> Mapping[str, Any]:
        del address
        write_record(self._records, step.record)
        if (want.object["apiVersion"], want.object["kind"]) == ("v1", "Pod"):
            self._wait_for_account(want.object, step)
        return apply_object(self._api.require(), want.object, step, self._context.name)

    def update(
        self, address: Address, want: ManifestInputs, have: Observation, changes: Sequence[FieldChange], step: Step
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
        delete_record(self._records, have.address)

    def _wait_for_account(self, pod: Mapping[str, Any], step: Step) -> None:
        """A pod is refused for good until its namespace, which may be a moment old, has its default service account."""
        namespace = str(pod["metadata"].get("namespace") or "default")
        if pod.get("spec", {}).get("serviceAccountName", "default") == "default":
            step.wait_until(
                lambda: self._api.takes_pods(namespace), f"pods can be made in namespace {namespace}", interval=0.03
            )
