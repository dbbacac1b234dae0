"""A node that runs WebAssembly: the node agent and, where it runs modules itself, the runtime beside it.

Owned: the components `<node>` and `<node>-runtime` in the supervisor, the node's home directory, its Node and Lease
objects, and for the minutes of joining a bootstrap token. The agent joins as any kubelet does (kubernetes.io, "TLS
bootstrapping"); its two certificate requests are approved here, after a look that they are its own.
"""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.components import Component, Probe
from cinderctl.host.control import acknowledge, read_status, restart_component
from cinderctl.host.files import ensure_dir, read_json, remove_tree, write_json
from cinderctl.host.records import delete_record, list_records, read_record, write_record
from cinderctl.kube.errors import ConflictError, KubeError, NotFoundError
from cinderctl.pki import PkiError, describe_request
from cinderctl.plans.model import FieldChange
from cinderctl.podnet.table import AddressTable
from cinderctl.resources.cluster_api import ClusterApi
from cinderctl.resources.context import Context, component_ready, run_components, withdraw_components

if TYPE_CHECKING:
    from cinderctl.kube.client import KubeClient

__all__ = ["WasmNodeInputs", "WasmNodeKind"]

_NODES = "/api/v1/nodes"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_SECRETS = "/api/v1/namespaces/kube-system/secrets"
_REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
_SERVING_SIGNER = "kubernetes.io/kubelet-serving"
_TOKEN_ALPHABET = string.ascii_lowercase + string.digits
_OF_KUBERNETES = "node.kubernetes.io/"
_NO_NODE = "no Node object"
_TOKEN_LIFE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class WasmNodeInputs:
    arch: str = input_field("wasm32-wasi or wasm32-wascc", replaces=True)
    port: int = input_field("Port of the kubelet API on the node's own address", default=3000)
    node_ip: str = input_field("The node's address in Kubernetes' eyes", replaces=True, default="")
    pod_cidr: str = input_field("Addresses of this node's pods", replaces=True, default="")
    cluster_cidr: str = input_field("Addresses of all pods and nodes", replaces=True, default="")
    block: Any = input_field("Second octet of the loopback block that stands for the cluster's addresses", default=244)
    server: Any = input_field("URL of the API server", default="")
    ca_file: Any = input_field("The cluster's CA certificate", default="")
    cluster_domain: str = input_field("DNS domain of Services", default="cluster.local")
    labels: Mapping[str, Any] = input_field("Labels beside those every wasm node has", default={})
    annotations: Mapping[str, Any] = input_field("Annotations of the node", default={})
    taints: Sequence[Any] = input_field("All taints of the node", default=())
    max_pods: int = input_field("Pods the node takes", default=1000)
    allow_local_modules: bool = input_field("Images `fs/PATH` are read from the node's own files", default=False)
    restart_bare_pods: bool = input_field("Pods without a controller restart by the book too", default=False)
    host_path_prefixes: tuple[str, ...] = input_field("hostPath volumes only below these; empty: anywhere", default=())
    state: str = input_field("Always `Ready`: what the Node's condition says", default="Ready")
    unexpected_exits: int = input_field(
        "Always 0: times its processes had to be restarted since the last apply", default=0
    )


class WasmNodeKind:
    kind: ClassVar[str] = "wasm_node"
    inputs: ClassVar[type[Any]] = WasmNodeInputs
    deadline: ClassVar[float] = 90.0
    parallelism: ClassVar[int] = 8
    volatile_outputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context, api: ClusterApi, version: str) -> None:
        self._context = context
        self._cluster = context.cluster
        self._api = api
        self._version = version

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._cluster.records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: WasmNodeInputs | None, scope: Scope) -> Observation:
        del scope
        record = read_record(self._cluster.records, address)
        kube = self._api.client()
        if kube is None and record is None:
            return Observation.absent(address)
        try:
            node = kube.get_or_none(f"{_NODES}/{address.name}") if kube is not None else None
        except KubeError as error:
            return Observation.not_seen(address, error.diagnostics[0].located(address=address))
        if record is None:
            if node is None:
                return Observation.absent(address)
            return Observation(address, Existence.PRESENT, foreign=f"node {address.name} exists and was not made here")
        status = read_status(self._cluster)
        mine = [
            status[name] for name in self._components_of(address.name, str(record.inputs["arch"])) if name in status
        ]
        attributes: dict[str, Any] = {"unexpected_exits": sum(one.unexpected_exits for one in mine)}
        stopped = [one for one in mine if one.state != "ready"]
        attributes["state"] = _condition(node)
        if stopped:
            attributes["state"] = f"{stopped[0].name} is {stopped[0].state}"
        if node is not None:
            labels = want.labels if want is not None else record.inputs.get("labels", {})
            found = node["metadata"].get("labels", {})
            attributes["labels"] = {key: found[key] for key in labels if key in found}
            attributes["taints"] = _taints(node)
            attributes["arch"] = found.get("kubernetes.io/arch", "")
        return Observation(address, Existence.PRESENT, attributes, {"node": address.name}, record)

    def create(self, address: Address, want: WasmNodeInputs, step: Step) -> Mapping[str, Any]:
        kube = self._api.require()
        home = self._cluster.node(address.name)
        ensure_dir(home)
        write_record(self._cluster.records, step.record)
        token = self._token(address.name, kube)
        config = self._config(address.name, want, token)
        write_json(home / "config.json", config)
        run_components(self._context, self._cluster, self._components(address.name, want, config))
        step.wait_until(
            lambda: self._joined(address.name, want, token, kube), f"node {address.name} is Ready", interval=0.05
        )
        step.wait_until(lambda: _taints_set(address.name, want, kube), f"the taints of {address.name} are set")
        for name in self._components_of(address.name, want.arch):
            acknowledge(self._cluster, name)
        self._drop_token(token, kube)
        return {"node": address.name}

    def update(
        self, address: Address, want: WasmNodeInputs, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        del changes
        if have.attributes.get("state") == _NO_NODE:
            # The agent would see by itself that its Node is gone, at its next heartbeat; a new one registers at once.
            restart_component(self._cluster, address.name)
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        name = have.address.name
        withdraw_components(self._cluster, self._components_of(name, str(step.record.inputs["arch"])))
        kube = self._api.client()
        if kube is not None:
            for path in (f"{_NODES}/{name}", f"{_LEASES}/{name}"):
                try:
                    kube.delete(path)
                except NotFoundError:
                    continue
        remove_tree(self._cluster.node(name), below=self._cluster.root)
        delete_record(self._cluster.records, have.address)

    def _components_of(self, node: str, arch: str) -> list[str]:
        return [node, f"{node}-runtime"] if arch == "wasm32-wasi" else [node]

    def _config(self, node: str, want: WasmNodeInputs, token: str) -> dict[str, Any]:
        table = AddressTable(want.cluster_cidr, int(want.block))
        real = table.to_real(want.node_ip, want.port)
        if real is None:
            raise CinderError(f"{want.node_ip} is no address of {want.cluster_cidr}")
        home = self._cluster.node(node)
        return {
            "cluster": self._context.name,
            "nodeName": node,
            "arch": want.arch,
            "server": str(want.server),
            "caFile": str(want.ca_file),
            "bootstrapToken": token,
            "directory": str(home),
            "runtimeSocket": str(home / "runtime.sock") if want.arch == "wasm32-wasi" else "",
            "nodeIP": want.node_ip,
            "listenAddress": real[0],
            "port": want.port,
            "podCidr": want.pod_cidr,
            "clusterCidr": want.cluster_cidr,
            "block": int(want.block),
            "mirrorsFile": str(self._context.mirrors_file),
            "maxPods": want.max_pods,
            "labels": dict(want.labels),
            "annotations": dict(want.annotations),
            "taints": [dict(taint) for taint in want.taints],
            "clusterDomain": want.cluster_domain,
            "allowLocalModules": want.allow_local_modules,
            "restartBarePods": want.restart_bare_pods,
            "hostPathPrefixes": list(want.host_path_prefixes),
            "version": self._version,
        }

    def _components(self, node: str, want: WasmNodeInputs, config: Mapping[str, Any]) -> list[Component]:
        home = self._cluster.node(node)
        # The token is not part of what makes an agent another one: it only serves the first join.
        shown = {key: value for key, value in config.items() if key != "bootstrapToken"}
        agent = Component(
            name=node,
            argv=(self._context.python, "-m", "cinderctl.wasmnode", "--config", str(home / "config.json")),
            config=shown,
            env=dict(self._context.environment),
            cwd=str(home),
            after=("kube-apiserver",),
            probe=Probe(kind="tcp", target=f"{config['listenAddress']}:{want.port}"),
        )
        if want.arch != "wasm32-wasi":
            return [agent]
        runtime = Component(
            name=f"{node}-runtime",
            argv=(
                self._context.python, "-m", "cinderctl.wasmrun",
                "--directory", str(home / "runtime"), "--socket", str(home / "runtime.sock"),
            ),
            env=dict(self._context.environment),
            cwd=str(home),
            probe=Probe(kind="unix", target=str(home / "runtime.sock")),
        )  # fmt: skip
        return [runtime, agent]

    def _token(self, node: str, kube: KubeClient) -> str:
        """A bootstrap token for this node, in the cluster and in our hands (kubernetes.io, "Bootstrap tokens")."""
        previous = read_json(self._cluster.node(node) / "config.json")
        token = str(previous.get("bootstrapToken", "")) if isinstance(previous, dict) else ""
        if not token:
            token = ".".join("".join(secrets.choice(_TOKEN_ALPHABET) for _ in range(n)) for n in (6, 16))
        identifier, _, secret = token.partition(".")
        values = {
            "token-id": identifier,
            "token-secret": secret,
            "expiration": (self._context.now() + _TOKEN_LIFE).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:cinderctl:wasm-nodes",
            "description": f"lets wasm node {node} join",
        }
        kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "bootstrap.kubernetes.io/token",
                "metadata": {"name": f"bootstrap-token-{identifier}", "namespace": "kube-system"},
                "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
            },
            field_manager="cinderctl",
            force=True,
        )
        return token

    def _drop_token(self, token: str, kube: KubeClient) -> None:
        try:
            kube.delete(f"{_SECRETS}/bootstrap-token-{token.partition('.')[0]}")
        except NotFoundError:
            return

    def _joined(self, node: str, want: WasmNodeInputs, token: str, kube: KubeClient) -> bool | None:
        """Approve what the agent asks for; true once its Node is Ready with the state the spec wants."""
        for request in kube.list(_REQUESTS):
            if not request.get("status", {}).get("conditions") and _is_its_own(request, node, want, token):
                _approve(request, kube)
        # Asked first because the answer is next door: the API server has enough to do while it starts.
        if not all(component_ready(self._cluster, name) for name in self._components_of(node, want.arch)):
            return None
        found = kube.get_or_none(f"{_NODES}/{node}")
        if found is None or _condition(found) != "Ready":
            return None
        labels = found["metadata"].get("labels", {})
        return True if all(labels.get(key) == value for key, value in want.labels.items()) else None


def _condition(node: Mapping[str, Any] | None) -> str:
    """`Ready`, or what is wrong in words."""
    if node is None:
        return _NO_NODE
    for condition in node.get("status", {}).get("conditions", []):
        if condition.get("type") == "Ready":
            return "Ready" if condition.get("status") == "True" else f"NotReady ({condition.get('reason', '')})"
    return "no Ready condition"


def _taints_set(node: str, want: WasmNodeInputs, kube: KubeClient) -> bool | None:
    """A Node's taints are the administrator's to set: once it is there, NodeRestriction refuses them to the node."""
    found = kube.get(f"{_NODES}/{node}")
    if _taints(found) == [dict(taint) for taint in want.taints]:
        return True
    theirs = [taint for taint in found["spec"].get("taints", []) if str(taint["key"]).startswith(_OF_KUBERNETES)]
    body = {
        # The node controller sets taints too: never on top of what it did meanwhile.
        "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
        "spec": {"taints": [*(dict(taint) for taint in want.taints), *theirs]},
    }
    try:
        kube.patch(f"{_NODES}/{node}", body, type="merge")
    except ConflictError:
        return None
    return True


def _taints(node: Mapping[str, Any]) -> list[dict[str, str]]:
    """Taints as the spec writes them; those Kubernetes itself puts on for a moment are left out."""
    taints = node.get("spec", {}).get("taints", [])
    kept = [taint for taint in taints if not str(taint.get("key", "")).startswith(_OF_KUBERNETES)]
    return [{key: str(taint[key]) for key in ("key", "value", "effect") if taint.get(key)} for taint in kept]


def _is_its_own(request: Mapping[str, Any], node: str, want: WasmNodeInputs, token: str) -> bool:
    """Whether a certificate request is this node's: by who sent it, for whom, and for which names and uses."""
    spec = request["spec"]
    try:
        asked = describe_request(base64.b64decode(spec["request"]))
    except (ValueError, PkiError):
        return False
    subject = asked.subject
    if subject.common_name != f"system:node:{node}" or subject.organizations != ("system:nodes",):
        return False
    names = set(subject.dns_names) | set(subject.ip_addresses)
    usages = set(spec.get("usages", [])) - {"digital signature", "key encipherment"}
    if spec["signerName"] == _CLIENT_SIGNER:
        sent_by = {f"system:bootstrap:{token.partition('.')[0]}", f"system:node:{node}"}
        return spec.get("username") in sent_by and not names and usages == {"client auth"}
    return (
        spec["signerName"] == _SERVING_SIGNER
        and spec.get("username") == f"system:node:{node}"
        and names <= {node, want.node_ip}
        and usages == {"server auth"}
    )


def _approve(request: Mapping[str, Any], kube: KubeClient) -> None:
    body = dict(request)
    body["status"] = {
        **request.get("status", {}),
        "conditions": [
            {
                "type": "Approved",
                "status": "True",
                "reason": "CinderctlApply",
                "message": "sent by the node that apply is joining",
            }
        ],
    }
    kube.request("PUT", f"{_REQUESTS}/{request['metadata']['name']}/approval", body=body)
