"""The ConfigMap `kube-public/local-registry-hosting` that tells developer tools where to push (KEP-1755).

Owned: that one object. All three hosts are written: Tilt reads the cluster's names, Skaffold only `host`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.records import delete_record, list_records, read_record, write_record
from cinderctl.plans.model import FieldChange
from cinderctl.resources.cluster_api import ClusterApi
from cinderctl.resources.context import Context
from cinderctl.resources.objects import apply_object, delete_object, observe_object

__all__ = ["RegistryHostingInputs", "RegistryHostingKind"]

_FIELDS = ("host", "hostFromContainerRuntime", "hostFromClusterNetwork", "help")


@dataclass(frozen=True, slots=True)
class RegistryHostingInputs:
    host: str = input_field("The registry as the developer's machine names it")
    hostFromContainerRuntime: str = input_field("The registry as pods' images name it")  # noqa: N815 - KEP-1755's names
    hostFromClusterNetwork: str = input_field("The registry as pods reach it")  # noqa: N815
    help: str = input_field("Where people read more", default="")


class RegistryHostingKind:
    kind: ClassVar[str] = "registry_hosting"
    inputs: ClassVar[type[Any]] = RegistryHostingInputs
    deadline: ClassVar[float] = 30.0
    parallelism: ClassVar[int] = 1
    volatile_outputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context, api: ClusterApi) -> None:
        self._context = context
        self._api = api
        self._records = context.cluster.records

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: RegistryHostingInputs | None, scope: Scope) -> Observation:
        del want
        record = read_record(self._records, address)
        seen = observe_object(self._api.client(), address, _config_map({}), record, scope.cluster)
        if seen.existence is not Existence.PRESENT or seen.foreign:
            return seen
        data = seen.attributes["object"].get("data", {}).get("localRegistryHosting.v1", "")
        return Observation(
            address, Existence.PRESENT, _read(data), seen.outputs, seen.record, changed_by=_named(seen.changed_by)
        )

    def create(self, address: Address, want: RegistryHostingInputs, step: Step) -> Mapping[str, Any]:
        del address
        write_record(self._records, step.record)
        values = {name: getattr(want, name) for name in _FIELDS}
        return apply_object(self._api.require(), _config_map(values), step, self._context.name)

    def update(
        self,
        address: Address,
        want: RegistryHostingInputs,
        have: Observation,
        changes: Sequence[FieldChange],
        step: Step,
    ) -> Mapping[str, Any]:
        del have, changes
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        delete_object(
            self._api.client(),
            _config_map({}),
            str(have.outputs.get("uid", "")),
            step,
            wait=not self._context.destroying,
        )
        delete_record(self._records, have.address)


def _config_map(values: Mapping[str, str]) -> dict[str, Any]:
    text = "".join(f'{name}: "{value}"\n' for name, value in values.items() if value)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "local-registry-hosting", "namespace": "kube-public"},
        "data": {"localRegistryHosting.v1": text},
    }


def _read(text: str) -> dict[str, Any]:
    """The fields of the YAML string; anything unreadable shows as missing fields, which is drift."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    found = {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
    return {name: found.get(name, "") for name in _FIELDS}


def _named(changed: Mapping[str, str]) -> dict[str, str]:
    who = next((value for path, value in changed.items() if path.startswith("object.data")), "")
    return dict.fromkeys(_FIELDS, who) if who else {}
