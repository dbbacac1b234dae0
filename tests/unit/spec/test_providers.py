"""What each provider refuses, what it lets pass with a word, and who can do it."""

from __future__ import annotations

import io
from pathlib import Path
from textwrap import dedent

import pytest

from cinderctl.core.diagnostics import Diagnostic, SpecError
from cinderctl.spec.load import load

HEADER = "apiVersion: cinder.crit.sh/v1alpha1\nkind: ClusterConfiguration\n"


def outcome(text: str) -> tuple[tuple[Diagnostic, ...], tuple[Diagnostic, ...]]:
    """Errors and warnings of a spec."""
    try:
        return (), load(["-"], cwd=Path("/"), stdin=io.StringIO(HEADER + dedent(text).lstrip("\n"))).warnings
    except SpecError as error:
        return error.diagnostics, ()


PLANE = "controlPlaneConfiguration"
REFUSED_BY_PROCESS = {
    "extraMounts: [{hostPath: a, containerPath: /a}]": ("extraMounts",),
    "extraPortMappings: [{containerPort: 80}]": ("extraPortMappings",),
    "workerConfiguration: {node: {kubeletExtraArgs: {v: 2}}}": ("workerConfiguration",),
    f"{PLANE}: {{kubeProxy: {{config: {{mode: ipvs}}}}}}": (PLANE, "kubeProxy", "config"),
    f"{PLANE}: {{node: {{kubelet: {{maxPods: 50}}}}}}": (PLANE, "node", "kubelet"),
    f"{PLANE}: {{node: {{kubeletExtraArgs: {{v: 2}}}}}}": (PLANE, "node", "kubeletExtraArgs"),
    f"{PLANE}: {{node: {{taints: [{{key: a, effect: NoSchedule}}]}}}}": (PLANE, "node", "taints"),
    f"{PLANE}: {{node: {{cloudProvider: aws}}}}": (PLANE, "node", "cloudProvider"),
    f"{PLANE}: {{etcd: {{endpoints: ['https://etcd:2379']}}}}": (PLANE, "etcd"),
    f"{PLANE}: {{controlPlaneEndpoint: 'api.local:6443'}}": (PLANE, "controlPlaneEndpoint"),
    f"{PLANE}: {{kubeAPIServer: {{extraVolumes: [{{hostPath: /a, mountPath: /b}}]}}}}": (
        PLANE,
        "kubeAPIServer",
        "extraVolumes",
        0,
        "mountPath",
    ),
    f"{PLANE}: {{podSubnet: 'fd00::/64'}}": (PLANE, "podSubnet"),
}


@pytest.mark.parametrize("text", REFUSED_BY_PROCESS)
def test_what_a_process_cannot_do_names_the_provider_that_can(text: str) -> None:
    errors, _ = outcome(text)
    (problem,) = errors
    assert problem.path == REFUSED_BY_PROCESS[text]
    assert problem.source == "<stdin>:3"
    assert "process provider cannot" in problem.summary
    assert problem.detail.endswith("The provider that can: docker")
    assert problem.hint
    assert outcome("provider: docker\n" + text) == ((), ())


def test_an_empty_section_asks_for_nothing() -> None:
    text = (
        f"extraMounts: []\nworkerConfiguration: {{}}\n{PLANE}: {{node: {{kubelet: {{}}}}, kubeProxy: {{config: {{}}}}}}"
    )
    assert outcome(text) == ((), ())


NO_EFFECT = " has no effect on the process provider"
IGNORED_BY_PROCESS = {
    f"{PLANE}: {{kubeProxy: {{affinity: {{nodeAffinity: {{}}}}}}}}": "`kubeProxy.affinity`" + NO_EFFECT,
    f"{PLANE}: {{kubeProxy: {{extraLabels: {{a: b}}}}}}": "`kubeProxy.extraLabels`" + NO_EFFECT,
    f"{PLANE}: {{kubeScheduler: {{extraLabels: {{a: b}}}}}}": "`kubeScheduler.extraLabels`" + NO_EFFECT,
    f"{PLANE}: {{coreDNSVersion: 1.6.9}}": "`coreDNSVersion`" + NO_EFFECT,
    f"{PLANE}: {{node: {{hostIPv4: 10.0.0.1}}}}": "`node.hostIPv4`" + NO_EFFECT,
    f"{PLANE}: {{featureGates: {{UploadETCDSecrets: true}}}}": "`featureGates` has no effect",
    f"{PLANE}: {{clusterName: other}}": "`clusterName` has no effect",
    f"{PLANE}: {{node: {{kubernetesVersion: v1.18.5}}}}": "`kubernetesVersion` of a node has no effect",
    "featureGates: {FixCgroupMounts: true}": "`FixCgroupMounts` has no effect",
    "featureGates: {AllAlpha: true}": "AllAlpha turns on no MachineAPI",
    "files: [{path: /a, owner: 'root:root', content: hi}]": "`owner`" + NO_EFFECT,
    "featureGates: {Krustlet: false}\nwasmNodes: [{}]": "wasm nodes are switched off",
    "registryMirrors: {docker.io: https://docker.io}": "no registry answers at this endpoint",
    "artifacts: [{name: a, path: a, build: {command: make}, reference: 'cinderegg:5000/a:v1'}]": (
        "pushes to a local registry that the cluster does not have"
    ),
    "lifecycle: {wasm_node.nobody: {protect: true}}": "the spec has no `wasm_node.nobody`",
}


@pytest.mark.parametrize("text", IGNORED_BY_PROCESS)
def test_what_changes_nothing_passes_with_a_word(text: str) -> None:
    if "artifacts" in text:
        text = text.replace("path: a,", "path: a, ").replace("make}", "make, directory: /}")
    errors, warnings = outcome(text)
    assert errors == ()
    expected = IGNORED_BY_PROCESS.get(text) or "pushes to a local registry that the cluster does not have"
    assert [problem.summary for problem in warnings] == [expected]


def test_what_a_component_needs_to_find_its_cluster_is_not_the_users_to_set() -> None:
    errors, _ = outcome(
        f"""
        {PLANE}:
          kubeAPIServer:
            extraArgs: {{secure-port: 7000, etcd-servers: x}}
          kubeControllerManager:
            extraArgs: {{cluster-cidr: 10.0.0.0/8}}
        """
    )
    assert [(problem.path[-1], problem.hint) for problem in errors] == [
        ("secure-port", "use `kubeAPIServer.bindPort`"),
        ("etcd-servers", "remove it"),
        ("cluster-cidr", "use `podSubnet`"),
    ]


def test_machine_api_is_refused_everywhere_with_the_alternative() -> None:
    for provider in ("process", "docker", "external"):
        errors, _ = outcome(f"provider: {provider}\nfeatureGates: {{MachineAPI: true}}")
        assert [problem.summary for problem in errors] == ["no provider has the gate MachineAPI"]
        assert "wasmNodes" in errors[0].hint


@pytest.mark.parametrize(
    "text",
    [
        "kubernetesVersion: v1.30.0",
        f"{PLANE}: {{podSubnet: 10.10.0.0/16}}",
        "files: [{path: /a, content: hi}]",
        "preCritCommands: [a]",
        "certificates: {algorithm: rsa-2048}",
    ],
)
def test_an_existing_cluster_is_not_set_up(text: str) -> None:
    errors, _ = outcome("provider: external\n" + text)
    (problem,) = errors
    assert problem.detail.endswith("The provider that can: process or docker")


@pytest.mark.parametrize(("subnet", "fits"), [("10.0.0.0/12", False), ("10.10.0.0/16", True), ("10.10.0.0/24", False)])
def test_the_pod_range_of_processes_fits_a_loopback_block(subnet: str, fits: bool) -> None:
    errors, _ = outcome(f"{PLANE}: {{podSubnet: {subnet}}}")
    assert (errors == ()) is fits


def test_nodes_of_one_machine_share_its_ports_only_where_they_share_its_addresses() -> None:
    nodes = "wasmNodes: [{name: a}, {name: b}]\n"
    assert outcome(nodes) == ((), ()), "each has an address of its own"
    errors, _ = outcome("provider: docker\n" + nodes)
    assert [problem.summary for problem in errors] == ["port 3000 is used twice"]


def test_the_number_of_wasm_nodes_is_bounded_by_the_pod_range() -> None:
    nodes = "\n".join(f"  - name: node-{number}" for number in range(16))
    errors, _ = outcome(f"wasmNodes:\n{nodes}\n")
    assert [problem.summary for problem in errors] == ["the process provider takes at most 15 wasm nodes"]


CINDER = f"""
featureGates: {{LocalRegistry: true, Krustlet: true, MachineAPI: false, FixCgroupMounts: true}}
localRegistryName: cinderegg
localRegistryPort: 5000
registryMirrors: {{plain.example:8080: "http://plain.example:8080"}}
files: [{{path: /etc/motd, owner: "root:root", permissions: "0644", content: "hi"}}]
preCritCommands: ["crit version"]
postCritCommands: ["kubectl get nodes"]
extraMounts: [{{hostPath: ./data, containerPath: /data, readOnly: true, attrs: [ro]}}]
extraPortMappings: [{{containerPort: 30000, hostPort: 8000, listenAddress: 0.0.0.0, protocol: TCP}}]
{PLANE}:
  apiVersion: crit.sh/v1alpha2
  kind: ControlPlaneConfiguration
  clusterName: cinder
  controlPlaneEndpoint: {{host: api.local, port: 6443}}
  podSubnet: 10.10.0.0/16
  serviceSubnet: 10.254.0.0/16
  coreDNSVersion: 1.6.9
  etcd: {{endpoints: ["https://e:2379"], caFile: /ca, certFile: /crt, keyFile: /key, caKey: /cakey}}
  kubeAPIServer:
    bindPort: 6443
    extraArgs: {{audit-log-maxage: "30"}}
    extraVolumes: [{{name: a, hostPath: /a, mountPath: /b, readOnly: true, hostPathType: Directory}}]
    featureGates: {{SomeGate: true}}
    extraSans: [dev.local, 10.1.2.3]
    extraLabels: {{a: b}}
  kubeControllerManager: {{extraArgs: {{v: "2"}}, extraVolumes: [], featureGates: {{}}, extraLabels: {{}}}}
  kubeScheduler: {{extraArgs: {{v: "2"}}}}
  kubeProxy: {{config: {{mode: ipvs}}, disabled: false, affinity: {{nodeAffinity: {{}}}}, extraLabels: {{a: b}}}}
  node:
    kubernetesVersion: v1.36.3
    hostname: a
    hostIPv4: 10.0.0.2
    kubeDir: /etc/kubernetes
    cloudProvider: ""
    containerRuntime: containerd
    taints: [{{key: a, value: b, effect: NoSchedule}}]
    kubelet: {{maxPods: 50}}
    kubeletExtraArgs: {{v: "2"}}
workerConfiguration:
  clusterName: cinder
  controlPlaneEndpoint: {{host: a}}
  bootstrapServerURL: ""
  bootstrapToken: abcdef.0123456789abcdef
  caCert: /ca
  featureGates: {{}}
  node: {{kubeletExtraArgs: {{node-labels: "tier=dev"}}}}
"""


def test_every_field_that_cinder_had_is_taken_by_docker() -> None:
    assert outcome("provider: docker" + CINDER) == ((), ())


def test_a_process_refuses_of_them_what_only_containers_have() -> None:
    errors, _ = outcome(CINDER)
    assert [".".join(map(str, problem.path)).removeprefix(f"{PLANE}.") for problem in errors] == [
        "extraMounts",
        "extraPortMappings",
        "controlPlaneEndpoint",
        "etcd",
        "kubeAPIServer.extraVolumes.0.mountPath",
        "kubeProxy.config",
        "node.taints",
        "node.kubelet",
        "node.kubeletExtraArgs",
        "workerConfiguration",
    ]
