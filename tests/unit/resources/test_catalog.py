"""Which resources a spec stands for, and what stands on what."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from cinderctl.core.address import Address
from cinderctl.core.digest import sha256_of
from cinderctl.core.values import Ref, Secret, redacted
from cinderctl.engine.graph import ResourceGraph
from cinderctl.engine.kinds import Declaration, inputs_as_dict
from cinderctl.engine.refs import refs_in
from cinderctl.resources.catalog import Material, declare, manifest_address
from cinderctl.spec.load import load

HEAD = "apiVersion: cinder.crit.sh/v1alpha1\nkind: ClusterConfiguration\n"
CERTIFICATES = {
    "admin": "ca",
    "apiserver": "ca",
    "apiserver-etcd-client": "etcd-ca",
    "apiserver-kubelet-client": "ca",
    "ca": "",
    "controller-manager": "ca",
    "controller-manager-server": "ca",
    "etcd-ca": "",
    "etcd-server": "etcd-ca",
    "front-proxy-ca": "",
    "front-proxy-client": "front-proxy-ca",
    "scheduler": "ca",
    "scheduler-server": "ca",
    "service-account": "",
}
BINDINGS = [
    "manifest.clusterrolebinding/cinderctl:kubelet-api-admin",
    "manifest.clusterrolebinding/cinderctl:node-autoapprove-certificate-rotation",
    "manifest.clusterrolebinding/cinderctl:node-bootstrapper",
]


def catalog(text: str, cwd: Path | None = None, **material: object) -> dict[str, Declaration]:
    """The declarations of a spec, by address."""
    loaded = load(["-"], cwd=cwd or Path.cwd(), stdin=io.StringIO(HEAD + text), name=None)
    objects = [(item.value, item.source) for item in loaded.objects]
    files = {item.path: loaded.file_data(index) for index, item in enumerate(loaded.config.files)}
    read = Material(files=files, objects=objects, source=loaded.source, **material)  # type: ignore[arg-type]
    declared = declare(loaded.config, read)
    assert len({one.address for one in declared}) == len(declared)
    return {str(one.address): one for one in declared}


def edges(declaration: Declaration) -> list[str]:
    """What it stands on, by edges and by references; certificates are left out."""
    found: Iterable[Address] = {
        *declaration.depends_on,
        *(ref.address for ref in refs_in(inputs_as_dict(declaration.inputs))),
    }
    return sorted(str(address) for address in found if address.kind != "certificate")


PLAIN = {
    "binaries.kubernetes": [],
    "cni.loopback": [],
    "control_plane.cinder": ["binaries.kubernetes", "cni.loopback"],
    "kubeconfig.cinder": ["control_plane.cinder"],
    "storage_class.local-path": ["control_plane.cinder"],
}
NODE = ["cni.loopback", "control_plane.cinder", BINDINGS[0], BINDINGS[2]]
GATES = {
    "binaries.registry": [],
    "registry.cinderegg": ["binaries.registry"],
    "registry_hosting.local-registry-hosting": ["control_plane.cinder", "registry.cinderegg"],
    "registry_mirror.cinderegg:5000": [],
    **{binding: ["control_plane.cinder"] for binding in BINDINGS},
    "wasm_node.cinder-wascc": NODE,
    "wasm_node.cinder-wasi": NODE,
}


@pytest.mark.parametrize(
    ("text", "golden"),
    [
        pytest.param("", PLAIN, id="plain"),
        pytest.param("featureGates: {LocalRegistry: true, Krustlet: true}\n", PLAIN | GATES, id="the Krustlet demo"),
        pytest.param("storageClass: {enabled: false}\n", {**PLAIN, "storage_class.local-path": None}, id="no storage"),
        pytest.param(
            "registryMirrors: {docker.io: https://mirror.example}\n",
            PLAIN | {"registry_mirror.docker.io": []},
            id="a mirror",
        ),
        pytest.param(
            "files: [{path: /etc/a, content: x}]\npreCritCommands: ['true']\npostCritCommands: ['true']\n",
            {
                **PLAIN,
                "file./etc/a": [],
                "command.pre": ["binaries.kubernetes", "file./etc/a"],
                "control_plane.cinder": ["binaries.kubernetes", "cni.loopback", "command.pre"],
                "command.post": [
                    "binaries.kubernetes",
                    "control_plane.cinder",
                    "file./etc/a",
                    "kubeconfig.cinder",
                    "storage_class.local-path",
                ],
            },
            id="files and commands",
        ),
    ],
)
def test_addresses_and_edges(text, golden):
    declared = catalog(text)
    seen = {name: edges(one) for name, one in declared.items() if one.address.kind != "certificate"}
    assert seen == {name: sorted(on) for name, on in golden.items() if on is not None}
    ResourceGraph.from_declarations(list(declared.values()))


def test_certificates_and_their_signers():
    declared = catalog("")
    signers = {one.address.name: one.inputs.signer for one in declared.values() if one.address.kind == "certificate"}
    assert signers == CERTIFICATES
    for name, signer in CERTIFICATES.items():
        assert [on.name for on in declared[f"certificate.{name}"].depends_on] == ([signer] if signer else [])
    on = {address.name for address in declared["control_plane.cinder"].depends_on if address.kind == "certificate"}
    assert on == set(CERTIFICATES)


def test_names_of_the_api_server():
    text = "controlPlaneConfiguration:\n  serviceSubnet: 10.1.0.0/16\n  kubeAPIServer:\n"
    inputs = catalog(f"{text}    extraSans: [k8s.example.com, 192.0.2.7, localhost]\n")["certificate.apiserver"].inputs
    assert inputs.dns_names == (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "k8s.example.com",
    )
    assert inputs.ip_addresses == ("10.1.0.1", "127.0.0.1", "192.0.2.7")


def test_flags_and_gates_go_to_their_component():
    text = """\
controlPlaneConfiguration:
  kubeScheduler: {extraArgs: {v: 4, leader-elect: true}}
  kubeAPIServer: {featureGates: {B: false, A: true}}
"""
    components = catalog(text)["control_plane.cinder"].inputs.components
    assert components["kube-scheduler"]["args"]["v"] == "4"
    assert components["kube-scheduler"]["args"]["leader-elect"] == "true"
    assert components["kube-apiserver"]["args"]["feature-gates"] == "A=true,B=false"
    assert "feature-gates" not in components["kube-controller-manager"]["args"]
    assert {(one["state"], one["unexpected_exits"]) for one in components.values()} == {("ready", 0)}


@pytest.mark.parametrize(
    ("args", "log"), [("", "{logs}/audit.log"), ("extraArgs: {audit-log-path: /var/log/a}", "/var/log/a")]
)
def test_an_audit_policy_becomes_a_file_and_flags(args, log):
    text = f"""\
controlPlaneConfiguration:
  kubeAPIServer:
    {args}
    auditPolicy: {{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{{level: Metadata}}]}}
"""
    inputs = catalog(text)["control_plane.cinder"].inputs
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
    assert inputs.files == {"audit-policy.json": policy}
    flags = inputs.components["kube-apiserver"]["args"]
    assert flags["audit-policy-file"] == "{config}/audit-policy.json"
    assert flags["audit-log-path"] == log


def test_wasm_nodes_have_addresses_of_their_own():
    text = "wasmNodes:\n- {name: a, labels: {zone: x}}\n- {name: b, arch: wasm32-wascc, port: 3007, maxPods: 5}\n"
    declared = catalog(text)
    a, b = declared["wasm_node.a"].inputs, declared["wasm_node.b"].inputs
    assert (a.node_ip, a.pod_cidr, a.port, a.arch) == ("10.244.255.1", "10.244.0.0/20", 3000, "wasm32-wasi")
    assert (b.node_ip, b.pod_cidr, b.port, b.arch) == ("10.244.255.2", "10.244.16.0/20", 3007, "wasm32-wascc")
    assert a.cluster_cidr == "10.244.0.0/16"
    assert a.labels == {"zone": "x"}
    assert b.max_pods == 5
    assert a.block == Ref(Address("cni", "loopback"), "block")
    assert [(taint["value"], taint["effect"]) for taint in b.taints] == [
        ("wasm32-wascc", "NoExecute"),
        ("wasm32-wascc", "NoSchedule"),
    ]


def test_the_registry_is_known_by_its_name_in_pods():
    text = "featureGates: {LocalRegistry: true}\nlocalRegistryName: mine\nlocalRegistryPort: 5055\n"
    declared = catalog(text)
    alias = declared["registry_mirror.mine:5055"].inputs
    assert (alias.endpoints, alias.exclusive) == (("http://localhost:5055",), True)
    hosting = declared["registry_hosting.local-registry-hosting"].inputs
    assert hosting.host == "localhost:5055"
    assert hosting.hostFromContainerRuntime == hosting.hostFromClusterNetwork == "mine:5055"


def test_files_are_declared_by_digest():
    inputs = catalog('files: [{path: /etc/a, content: hello, permissions: "0600"}]\n')["file./etc/a"].inputs
    assert inputs.digest == sha256_of(b"hello")
    assert inputs.permissions == "0600"


SECRETS = """\
manifests:
- inline:
    apiVersion: v1
    kind: Secret
    metadata: {name: login}
    data: {user: bWU=, password: b2xk}
    stringData: {password: hunter2}
"""


def test_secret_data_are_wrapped_and_never_stored():
    declared = catalog(SECRETS)["manifest.secret/default/login"]
    wanted = declared.inputs.object
    assert "stringData" not in wanted
    assert wanted["data"] == {"user": Secret("bWU="), "password": Secret(base64.b64encode(b"hunter2").decode())}
    stored = json.dumps(redacted(inputs_as_dict(declared.inputs)))
    assert "hunter2" not in stored
    assert base64.b64encode(b"hunter2").decode() not in stored
    assert "bWU=" not in stored


NAMESPACES = """\
kubeconfig: {namespace: apps}
manifests:
- inline: {apiVersion: v1, kind: Namespace, metadata: {name: apps}}
- inline: {apiVersion: v1, kind: ConfigMap, metadata: {name: here}}
- inline: {apiVersion: v1, kind: ConfigMap, metadata: {name: there, namespace: other}}
- inline: {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: reader}}
- inline: {apiVersion: example.com/v1, kind: Widget, metadata: {name: w}}
- inline:
    apiVersion: apiextensions.k8s.io/v1
    kind: CustomResourceDefinition
    metadata: {name: widgets.example.com}
    spec: {group: example.com, names: {kind: Widget, plural: widgets}, scope: Cluster, versions: []}
"""


def test_objects_lie_in_the_contexts_namespace_and_stand_on_what_they_need():
    declared = catalog(NAMESPACES)
    mine = {name: edges(one) for name, one in declared.items() if one.address.kind == "manifest"}
    crd = "manifest.customresourcedefinition.apiextensions.k8s.io/widgets.example.com"
    plane = "control_plane.cinder"
    assert mine == {
        "manifest.namespace/apps": [plane],
        "manifest.configmap/apps/here": [plane, "manifest.namespace/apps"],
        "manifest.configmap/other/there": [plane],
        "manifest.clusterrole.rbac.authorization.k8s.io/reader": [plane],
        "manifest.widget.example.com/w": [plane, crd],
        crd: [plane],
    }
    assert declared["manifest.configmap/apps/here"].inputs.object["metadata"]["namespace"] == "apps"


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}}, "pod/b/a"),
        ({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}, "deployment/a"),
        ({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}}, "widget.example.com/a"),
    ],
)
def test_manifest_addresses(item, name):
    assert manifest_address(item) == Address("manifest", name)


def test_an_artifact_waits_for_the_clusters_own_registry_and_no_other(tmp_path):
    text = """\
featureGates: {LocalRegistry: true}
artifacts:
- {name: mine, path: mine.wasm, reference: "localhost:5000/mine:v1"}
- {name: far, path: far.wasm, reference: "registry.example/far:v1"}
"""
    modules = {name: (str(tmp_path / f"{name}.wasm"), "sha256:x", "") for name in ("mine", "far")}
    for path, _, _ in modules.values():
        Path(path).write_bytes(b"\0asm\x01\0\0\0")
    declared = catalog(text, tmp_path, modules=modules)
    assert edges(declared["artifact.mine"]) == ["registry.cinderegg"]
    assert edges(declared["artifact.far"]) == []


def test_lifecycle_by_pattern():
    text = "lifecycle:\n  'wasm_node.*': {protect: true}\n  'manifest.*': {ignore: [object.spec.replicas]}\n"
    declared = catalog("featureGates: {Krustlet: true}\n" + text)
    assert declared["wasm_node.cinder-wasi"].lifecycle.protect
    assert not declared["control_plane.cinder"].lifecycle.protect
    assert declared[BINDINGS[0]].lifecycle.ignore == ("object.spec.replicas",)


def test_every_declaration_says_where_the_spec_has_it():
    for declaration in catalog("featureGates: {LocalRegistry: true, Krustlet: true}\n").values():
        assert declaration.source.startswith("<stdin>:"), declaration.address


def test_plans_hold_no_path_of_this_machine_but_those_the_user_wrote():
    declared = catalog("featureGates: {LocalRegistry: true, Krustlet: true}\n")
    texts = [json.dumps(redacted(inputs_as_dict(one.inputs)), default=str) for one in declared.values()]
    assert not [text for text in texts if str(Path.cwd()) in text or str(Path.home()) + "/" in text]
