"""A registry of the user's own: CNCF Distribution as a process on loopback, shared by all clusters that name it.

Owned: a directory below `_registry/` with its own supervisor, the `registry` component, the data, and one file a user
cluster. Deleting it for a cluster takes that cluster off the list; the process goes with the last, the data stays
unless the spec says otherwise. A foreign service on the port is reported, never used."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.components import Component, Probe
from cinderctl.host.control import acknowledge, read_components, read_status
from cinderctl.host.dirs import RegistryDir
from cinderctl.host.files import ensure_dir, read_json, remove_file, remove_tree, write_json
from cinderctl.host.ports import port_owner
from cinderctl.host.records import delete_record, list_records, read_record, write_record
from cinderctl.plans.model import FieldChange
from cinderctl.resources.context import Context, component_ready, run_components, withdraw_components

__all__ = ["RegistryInputs", "RegistryKind"]

_COMPONENT = "registry"


@dataclass(frozen=True, slots=True)
class RegistryInputs:
    program: Any = input_field("Path of the Distribution binary")
    port: int = input_field("Port on 127.0.0.1", default=5000)
    delete_data: bool = input_field("Delete the content with the last cluster that uses it", default=False)
    state: str = input_field("Always `ready`: the registry answers", default="ready")
    unexpected_exits: int = input_field("Always 0: times it had to be restarted since the last apply", default=0)


class RegistryKind:
    kind: ClassVar[str] = "registry"
    inputs: ClassVar[type[Any]] = RegistryInputs
    deadline: ClassVar[float] = 60.0
    parallelism: ClassVar[int] = 1
    volatile_outputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context) -> None:
        self._context = context
        self._records = context.cluster.records

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: RegistryInputs | None, scope: Scope) -> Observation:
        del want, scope
        directory = self._context.home.registry(address.name)
        record = read_record(self._records, address)
        if record is None or not (directory.users / self._context.name).exists():
            return Observation.absent(address)
        component = read_components(directory).get(_COMPONENT)
        status = read_status(directory).get(_COMPONENT)
        attributes: dict[str, Any] = {"state": status.state if status else "missing"}
        if component is not None:
            attributes["program"] = component.argv[0]
            attributes["port"] = int(component.config.get("port", 0))
        attributes["unexpected_exits"] = status.unexpected_exits if status else 0
        return Observation(address, Existence.PRESENT, attributes, _outputs(attributes.get("port", 0)), record)

    def create(self, address: Address, want: RegistryInputs, step: Step) -> Mapping[str, Any]:
        directory = self._context.home.registry(address.name)
        self._check_shared(address, want)
        write_record(self._records, step.record)
        ensure_dir(directory.users)
        ensure_dir(directory.data)
        write_json(directory.users / self._context.name, {"cluster": self._context.name})
        status = read_status(directory).get(_COMPONENT)
        running = status is not None and status.state in {"running", "ready", "starting"}
        if not running and (owner := port_owner("127.0.0.1", want.port)):
            raise CinderError(
                f"port {want.port} of 127.0.0.1 is in use by {owner}",
                detail="the local registry listens there; what answers there now was not started by cinderctl",
                hint="stop that program, or choose another port with `localRegistryPort`",
            )
        config = directory.root / "config.json"
        previous = read_json(config)
        secret = previous["http"]["secret"] if isinstance(previous, dict) else secrets.token_hex(16)
        # JSON is YAML, which is what Distribution reads.
        write_json(config, _configuration(str(directory.data), want.port, secret))
        component = Component(
            name=_COMPONENT,
            argv=(str(want.program), "serve", str(config)),
            config={"port": want.port},
            env={**self._context.environment, "OTEL_TRACES_EXPORTER": "none"},
            cwd=str(directory.root),
            probe=Probe(kind="http", target=f"http://127.0.0.1:{want.port}/v2/"),
        )
        run_components(self._context, directory, [component])

        step.wait_until(lambda: component_ready(directory, _COMPONENT), "the registry answers", interval=0.03)
        acknowledge(directory, _COMPONENT)
        return _outputs(want.port)

    def update(
        self, address: Address, want: RegistryInputs, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        del have, changes
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        directory = self._context.home.registry(have.address.name)
        remove_file(directory.users / self._context.name)
        if not self._other_users(have.address):
            withdraw_components(directory, [_COMPONENT])
            self._clear(directory, keep_data=not step.record.inputs.get("delete_data"))
        delete_record(self._records, have.address)

    def _clear(self, directory: RegistryDir, *, keep_data: bool) -> None:
        """Nobody uses it any more: what is left is the content, if anything."""
        for child in directory.root.iterdir():
            if not (keep_data and child == directory.data):
                remove_tree(child, below=directory.root)
        for empty in (directory.root, directory.root.parent):
            if not any(empty.iterdir()):
                empty.rmdir()

    def _other_users(self, address: Address) -> list[str]:
        users = self._context.home.registry(address.name).users
        names = sorted(path.name for path in users.iterdir()) if users.is_dir() else []
        # A user whose cluster directory is gone (removed by hand) holds the registry no longer.
        known = set(self._context.home.clusters())
        return [name for name in names if name != self._context.name and name in known]

    def _check_shared(self, address: Address, want: RegistryInputs) -> None:
        component = read_components(self._context.home.registry(address.name)).get(_COMPONENT)
        others = self._other_users(address)
        if component is not None and others and component.config.get("port") != want.port:
            raise CinderError(
                f"registry {address.name} is on port {component.config.get('port')}, the spec says {want.port}",
                detail=f"it is shared with the cluster(s) {', '.join(others)}",
                hint="use the same `localRegistryPort`, or another `localRegistryName`",
            )


def _configuration(data: str, port: int, secret: str) -> dict[str, Any]:
    """Distribution's configuration (distribution.github.io, "Configuring a registry"). Loopback, plain http."""
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": data}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": secret, "headers": {"X-Content-Type-Options": ["nosniff"]}},
    }


def _outputs(port: int) -> dict[str, Any]:
    return {"host": f"localhost:{port}", "url": f"http://localhost:{port}"}
