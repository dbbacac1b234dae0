"""The loopback pod network of the process provider: a block of loopback addresses and the API server's way into it.

Owned: the cluster's block in the host's allocations, `network.json`, the egress selector file the API server reads,
and the `egress` task in the supervisor. Kubernetes sees the pod range; the same host bits below 127.BLOCK are where
pods and nodes listen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.components import Component, Probe
from cinderctl.host.control import acknowledge, read_status
from cinderctl.host.files import read_json, write_json
from cinderctl.host.ports import allocate_block, is_bound, release_block
from cinderctl.host.records import delete_record, list_records, read_record, write_record
from cinderctl.plans.model import FieldChange
from cinderctl.podnet.egress import egress_selector_config
from cinderctl.podnet.table import AddressTable
from cinderctl.resources.context import Context, component_ready, run_components, withdraw_components

__all__ = ["CniInputs", "CniKind"]

_COMPONENT = "egress"


@dataclass(frozen=True, slots=True)
class CniInputs:
    pod_cidr: str = input_field("Addresses pods and nodes have in Kubernetes' eyes", replaces=True)
    state: str = input_field("Always `ready`: the egress proxy answers", default="ready")


class CniKind:
    kind: ClassVar[str] = "cni"
    inputs: ClassVar[type[Any]] = CniInputs
    deadline: ClassVar[float] = 30.0
    parallelism: ClassVar[int] = 1
    volatile_outputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context) -> None:
        self._context = context
        self._cluster = context.cluster
        self._selector = context.cluster.root / "egress.json"
        self._socket = context.cluster.run / "egress.sock"

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._cluster.records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: CniInputs | None, scope: Scope) -> Observation:
        del want, scope
        record = read_record(self._cluster.records, address)
        network = read_json(self._cluster.network)
        if record is None:
            return Observation.absent(address)
        status = read_status(self._cluster).get(_COMPONENT)
        attributes = {"pod_cidr": record.inputs["pod_cidr"], "state": status.state if status else "missing"}
        if isinstance(network, dict):
            attributes["pod_cidr"] = network.get("podCidr", "")
        else:  # only the file is lost, not the addresses: another range would replace the whole cluster
            attributes["state"] = f"without {self._cluster.network.name}"
        return Observation(address, Existence.PRESENT, attributes, self._outputs(), record)

    def create(self, address: Address, want: CniInputs, step: Step) -> Mapping[str, Any]:
        del address
        block = allocate_block(
            self._context.home.host, self._context.name, in_use=lambda block: _is_taken(want.pod_cidr, block)
        )
        write_json(self._cluster.network, {"podCidr": want.pod_cidr, "block": block})
        # Relative to where the API server runs: a socket address has room for 107 characters only (unix(7)).
        write_json(self._selector, egress_selector_config(f"./{self._socket.relative_to(self._cluster.root)}"))
        write_record(self._cluster.records, step.record)
        config = {"socket": str(self._socket), "podCidr": want.pod_cidr, "block": block}
        component = Component(
            name=_COMPONENT, task=_COMPONENT, config=config, probe=Probe(kind="unix", target=str(self._socket))
        )
        run_components(self._context, self._cluster, [component])
        step.wait_until(lambda: component_ready(self._cluster, _COMPONENT), "the egress proxy listens", interval=0.02)
        acknowledge(self._cluster, _COMPONENT)
        return self._outputs()

    def update(
        self, address: Address, want: CniInputs, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        del have, changes
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        del step
        withdraw_components(self._cluster, [_COMPONENT])
        for path in (self._selector, Path(self._cluster.network), self._socket):
            path.unlink(missing_ok=True)
        release_block(self._context.home.host, self._context.name)
        delete_record(self._cluster.records, have.address)

    def _outputs(self) -> dict[str, Any]:
        network = read_json(self._cluster.network)
        if not isinstance(network, dict):
            return {}
        return {"egress_config": str(self._selector), "block": int(network["block"])}


def _is_taken(pod_cidr: str, block: int) -> bool:
    """Whether node agents listen there already: those of another user, whose allocations are not ours to read."""
    table = AddressTable(pod_cidr, block)
    network = IPv4Network(pod_cidr)
    places = [table.to_real(str(network[number - 256]), port) for number, port in ((1, 3000), (2, 3001))]
    return any(is_bound(*place) for place in places if place is not None)
