"""What a spec means: defaults, cinder's lenient forms, and what is only implied."""

from __future__ import annotations

import base64
import gzip
import io
from pathlib import Path
from textwrap import dedent

import pytest

from cinderctl.spec.load import load
from cinderctl.spec.v1alpha1 import ClusterConfiguration

HEADER = "apiVersion: cinder.crit.sh/v1alpha1\nkind: ClusterConfiguration\n"


def config(text: str = "") -> ClusterConfiguration:
    return load(["-"], cwd=Path("/"), stdin=io.StringIO(HEADER + dedent(text).lstrip("\n"))).config


def test_the_defaults_of_a_spec_that_says_nothing() -> None:
    plain = config()
    assert plain.name == "cinder"
    assert plain.provider == "process"
    assert plain.kubernetes_version == "v1.36.3"
    assert plain.context_name == "kubernetes-admin@cinder"
    assert plain.local_registry == "cinderegg:5000"
    assert plain.control_plane_configuration.pod_subnet == "10.244.0.0/16"
    assert plain.control_plane_configuration.service_subnet == "10.96.0.0/16"
    assert plain.effective_wasm_nodes == ()
    assert not plain.registry_enabled
    assert plain.storage_class.enabled


def test_empty_sections_mean_their_defaults() -> None:
    empty = config("metadata:\nfiles:\nfeatureGates:\nwasmNodes:\ncontrolPlaneConfiguration:\n  kubeAPIServer:\n")
    assert empty == config()


def test_the_krustlet_gate_alone_gives_one_node_of_each_kind() -> None:
    nodes = config("metadata: {name: dev}\nfeatureGates: {Krustlet: true}").effective_wasm_nodes
    assert [(node.name, node.arch, node.port) for node in nodes] == [
        ("dev-wasi", "wasm32-wasi", 3000),
        ("dev-wascc", "wasm32-wascc", 3001),
    ]


def test_listed_nodes_need_no_gate_and_replace_the_default_ones() -> None:
    listed = "wasmNodes:\n  - {arch: wasm32-wascc}\n  - {name: big, port: 3010, maxPods: 5}\n"
    for text in (listed, "featureGates: {Krustlet: true}\n" + listed):
        nodes = config(text).effective_wasm_nodes
        assert [(node.name, node.port, node.max_pods) for node in nodes] == [
            ("cinder-wascc", 3001, 1000),
            ("big", 3010, 5),
        ]


def test_an_empty_list_of_nodes_is_no_nodes_and_a_gate_switched_off_holds() -> None:
    assert config("featureGates: {Krustlet: true}\nwasmNodes: []").effective_wasm_nodes == ()
    assert config("featureGates: {Krustlet: false}\nwasmNodes: [{}]").effective_wasm_nodes == ()


def test_all_alpha_turns_on_what_is_not_named() -> None:
    gated = config("featureGates: {AllAlpha: true, MachineAPI: false}")
    assert gated.gate("Krustlet")
    assert gated.registry_enabled
    assert not gated.gate("MachineAPI")
    assert not config("featureGates: {AllAlpha: true, Krustlet: false, MachineAPI: false}").gate("Krustlet")


def test_flags_are_taken_as_written() -> None:
    flags = config(
        """
        controlPlaneConfiguration:
          kubeAPIServer:
            extraArgs:
              audit-log-maxage: 30
              profiling: false
              v: "2"
              ratio: 1.50
              mode: 0644
              runtime-config: [api/all=true, 5]
              quiet: no
        """
    ).control_plane_configuration.kube_api_server.extra_args
    assert dict(flags) == {
        "audit-log-maxage": "30",
        "profiling": "false",
        "v": "2",
        "ratio": "1.50",
        "mode": "0644",
        "runtime-config": "api/all=true,5",
        "quiet": "no",
    }


def test_unquoted_yes_and_no_are_switches_as_cinder_read_them() -> None:
    gates = config("featureGates: {LocalRegistry: yes, Krustlet: off}").feature_gates
    assert dict(gates) == {"LocalRegistry": True, "Krustlet": False}


def test_permissions_may_be_unquoted_and_default_to_0644() -> None:
    files = config(
        """
        files:
          - {path: /a, permissions: 0600, content: hi}
          - {path: /b, permissions: "755", content: hi}
          - {path: /c, permissions: "", content: hi}
          - {path: /d, content: hi}
        """
    ).files
    assert [file.mode for file in files] == [0o600, 0o755, 0o644, 0o644]


def test_files_decode_to_their_bytes() -> None:
    packed = base64.b64encode(gzip.compress(b"packed", mtime=0)).decode()
    plain, encoded, zipped = config(
        f"""
        files:
          - {{path: /a, content: "käse"}}
          - {{path: /b, encoding: base64, content: "AAEC"}}
          - {{path: /c, encoding: gzip+base64, content: "{packed}"}}
        """
    ).files
    assert (plain.data(), encoded.data(), zipped.data()) == ("käse".encode(), b"\x00\x01\x02", b"packed")


def test_kubernetes_values_are_read_as_kubectl_reads_them() -> None:
    (item,) = config(
        """
        manifests:
          - inline:
              apiVersion: v1
              kind: Pod
              metadata: {name: a}
              spec: {automountServiceAccountToken: no, volumes: [{defaultMode: 0644}], n: 1.5, day: 2024-01-01}
        """
    ).manifests
    assert item.inline is not None
    assert item.inline["spec"] == {
        "automountServiceAccountToken": False,
        "volumes": [{"defaultMode": 0o644}],
        "n": 1.5,
        "day": "2024-01-01",
    }


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [("api.local:6443", "api.local", 6443), ("api.local", "api.local", None), ("'[::1]:6443'", "::1", 6443)],
)
def test_an_endpoint_may_be_text_as_crit_had_it(written: str, host: str, port: int | None) -> None:
    endpoint = config(
        f"provider: docker\ncontrolPlaneConfiguration: {{controlPlaneEndpoint: {written}}}"
    ).control_plane_configuration.control_plane_endpoint
    assert (endpoint.host, endpoint.port) == (host, port)


def test_a_mirror_is_one_endpoint_or_several_in_order() -> None:
    mirrors = config("registryMirrors: {a.dev: 'https://b.dev/', 'c.dev:80': [http://d, https://e/x]}").registry_mirrors
    assert dict(mirrors) == {"a.dev": ("https://b.dev",), "c.dev:80": ("http://d", "https://e/x")}


def test_lifecycle_rules_of_all_matching_patterns_hold_together() -> None:
    spec = config(
        """
        lifecycle:
          "*": {ignore: [metadata.labels]}
          registry.*: {protect: true, ignore: [port, metadata.labels]}
        """
    )
    registry = spec.lifecycle_of("registry.cinderegg")
    assert (registry.protect, registry.ignore) == (True, ("metadata.labels", "port"))
    assert not spec.lifecycle_of("manifest.x").protect


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config().provider = "docker"
