"""The control plane as upstream's processes of the user, on loopback.

Owned: the component definitions etcd, kube-apiserver, kube-controller-manager and kube-scheduler in the cluster's
supervisor, their kubeconfigs, the etcd data and the recorded ports. Changed flags restart that component and no other.
Nothing in it is replaced in place of data: only another service range asks for a new cluster.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.core.digest import digest_of
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.components import Component, Probe
from cinderctl.host.control import acknowledge, read_components, read_status
from cinderctl.host.files import ensure_dir, remove_tree, write_json
from cinderctl.host.ports import free_port, release_ports
from cinderctl.host.records import delete_record, list_records, read_record, write_record
from cinderctl.plans.model import FieldChange
from cinderctl.resources.cluster_api import ClusterApi, server_of
from cinderctl.resources.context import Context, component_ready, run_components, withdraw_components
from cinderctl.resources.control_plane.flags import COMPONENTS, Layout, Ports, command_line

__all__ = ["ControlPlaneInputs", "ProcessControlPlaneKind"]


@dataclass(frozen=True, slots=True)
class ControlPlaneInputs:
    version: str = input_field("Kubernetes version, as v1.36.3")
    programs: Any = input_field("Component → path of its program")
    service_cidr: str = input_field(
        "Addresses of Services; stored in every Service, so it cannot change", replaces=True
    )
    api_port: int = input_field(
        "Preferred port of the API server; another free one is taken and kept when it is in use", default=6443
    )
    components: Mapping[str, Any] = input_field("Component → {args: flag → value, state, unexpected_exits}", default={})
    files: Mapping[str, Any] = input_field(
        "Files the components read, file name → content (an audit policy)", default={}
    )
    egress_config: Any = input_field("The API server's egress selector configuration", default="")


class ProcessControlPlaneKind:
    kind: ClassVar[str] = "control_plane"
    inputs: ClassVar[type[Any]] = ControlPlaneInputs
    deadline: ClassVar[float] = 180.0
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

    def observe(self, address: Address, want: ControlPlaneInputs | None, scope: Scope) -> Observation:
        del want, scope
        record = read_record(self._cluster.records, address)
        if record is None:
            return Observation.absent(address)
        defined, status = read_components(self._cluster), read_status(self._cluster)
        components: dict[str, Any] = {}
        programs: dict[str, Any] = {}
        for name in COMPONENTS:
            if name not in defined:
                components[name] = {"state": "missing"}
                continue
            now = status.get(name)
            programs[name] = defined[name].argv[0]
            components[name] = {
                "args": dict(defined[name].config.get("args", {})),
                "state": now.state if now else "stopped",
                "unexpected_exits": now.unexpected_exits if now else 0,
            }
        attributes = {"components": components, "programs": programs}
        return Observation(address, Existence.PRESENT, attributes, self._outputs(), record)

    def create(self, address: Address, want: ControlPlaneInputs, step: Step) -> Mapping[str, Any]:
        del address
        ensure_dir(self._cluster.etcd)
        write_record(self._cluster.records, step.record)
        ports = self._ports(want.api_port)
        for name, content in want.files.items():
            ensure_dir(self._cluster.root / "config")
            write_json(self._cluster.root / "config" / name, content)
        self._write_kubeconfigs(ports)
        run_components(self._context, self._cluster, self._components(want, ports))
        for name in COMPONENTS:
            step.wait_until(partial(component_ready, self._cluster, name), f"{name} is ready", interval=0.02)
            acknowledge(self._cluster, name)
        return self._outputs()

    def update(
        self, address: Address, want: ControlPlaneInputs, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        del have, changes
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        del step
        # The data go with it, so nobody is given time to say good-bye.
        withdraw_components(self._cluster, list(COMPONENTS), grace=0.0)
        for directory in (self._cluster.etcd, self._cluster.kubeconfigs, self._cluster.root / "config"):
            remove_tree(directory, below=self._cluster.root)
        release_ports(self._context.home.host, f"{self._context.name}/")
        delete_record(self._cluster.records, have.address)

    def _ports(self, preferred: int) -> Ports:
        def port(key: str, wish: int | None = None) -> int:
            return free_port(self._context.home.host, f"{self._context.name}/{key}", wish)

        return Ports(
            api_server=port("kube-apiserver", preferred),
            etcd_client=port("etcd-client"),
            etcd_peer=port("etcd-peer"),
            controller_manager=port("kube-controller-manager"),
            scheduler=port("kube-scheduler"),
        )

    def _layout(self, egress_config: Any) -> Layout:
        return Layout(self._cluster.pki, self._cluster.kubeconfigs, self._cluster.etcd, Path(str(egress_config)))

    def _components(self, want: ControlPlaneInputs, ports: Ports) -> list[Component]:
        pki = self._cluster.pki
        layout = self._layout(want.egress_config)
        probes = {
            "etcd": Probe(
                kind="https",
                target=f"https://127.0.0.1:{ports.etcd_client}/health",
                ca=str(pki / "etcd-ca.crt"),
                cert=str(pki / "apiserver-etcd-client.crt"),
                key=str(pki / "apiserver-etcd-client.key"),
                timeout=60,
            ),
            "kube-apiserver": self._probe(ports.api_server, "/readyz"),
            "kube-controller-manager": self._probe(ports.controller_manager, "/healthz"),
            "kube-scheduler": self._probe(ports.scheduler, "/healthz"),
        }
        # The API server retries etcd by itself, so it may initialise while etcd still starts: that saves half a second.
        after = {"kube-controller-manager": ("kube-apiserver",), "kube-scheduler": ("kube-apiserver",)}
        components = []
        for name in COMPONENTS:
            args = {flag: str(value) for flag, value in want.components.get(name, {}).get("args", {}).items()}
            replaced = {flag: self._placed(value) for flag, value in args.items()}
            config: dict[str, Any] = {"args": args}
            if name == "kube-apiserver" and want.files:
                config["files"] = digest_of(want.files)  # read at its start only, so another content is a restart
            components.append(
                Component(
                    name=name,
                    argv=tuple(command_line(str(want.programs[name]), name, replaced, layout, ports)),
                    config=config,
                    env=dict(self._context.environment),
                    cwd=str(self._cluster.root),
                    after=after.get(name, ()),
                    probe=probes[name],
                    # The API server would wait a minute for its watchers to leave; they come back by themselves.
                    stop_grace=10.0 if name == "etcd" else 2.0,
                )
            )
        return components

    def _placed(self, value: str) -> str:
        """The catalog knows no paths: it writes `{config}` and `{logs}`."""
        return value.replace("{config}", str(self._cluster.root / "config")).replace("{logs}", str(self._cluster.logs))

    def _probe(self, port: int, path: str) -> Probe:
        pki = self._cluster.pki
        return Probe(
            kind="https",
            target=f"https://127.0.0.1:{port}{path}",
            ca=str(pki / "ca.crt"),
            cert=str(pki / "admin.crt"),
            key=str(pki / "admin.key"),
            timeout=120,
        )

    def _write_kubeconfigs(self, ports: Ports) -> None:
        ensure_dir(self._cluster.kubeconfigs)
        server = f"https://127.0.0.1:{ports.api_server}"
        for name in ("admin", "controller-manager", "scheduler"):
            write_json(self._cluster.kubeconfigs / f"{name}.conf", self._kubeconfig(name, server))

    def _kubeconfig(self, user: str, server: str) -> dict[str, Any]:
        # Client files are named, not embedded: a rotated certificate is then read without a restart (client-go).
        pki = self._cluster.pki
        ca = base64.b64encode((pki / "ca.crt").read_bytes()).decode()
        context = f"kubernetes-{user}@{self._context.name}"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self._context.name, "cluster": {"server": server, "certificate-authority-data": ca}}],
            "users": [
                {
                    "name": context,
                    "user": {
                        "client-certificate": str(pki / f"{user}.crt"),
                        "client-key": str(pki / f"{user}.key"),
                    },
                }
            ],
            "contexts": [{"name": context, "context": {"cluster": self._context.name, "user": context}}],
            "current-context": context,
        }

    def _outputs(self) -> dict[str, Any]:
        server = server_of(self._cluster)
        if not server:
            return {}
        return {
            "server": server,
            "kubeconfig": str(self._cluster.kubeconfigs / "admin.conf"),
            "ca_file": str(self._cluster.pki / "ca.crt"),
        }
