"""What is wrong with a spec, as its author reads it: where, what, why, what to do. One table row for each mistake."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from cinderctl.core.diagnostics import SpecError
from cinderctl.spec.diagnostics import SpecDiagnostic
from cinderctl.spec.load import load

HEADER = "apiVersion: cinder.crit.sh/v1alpha1\nkind: ClusterConfiguration\n"


def problems(text: str, cwd: Path) -> list[SpecDiagnostic]:
    """The errors of a spec; the first line of `text` is line 3 of cluster.yaml."""
    (cwd / "cluster.yaml").write_text(HEADER + dedent(text).lstrip("\n"))
    with pytest.raises(SpecError) as caught:
        load([], cwd=cwd)
    found = caught.value.diagnostics
    assert all(isinstance(problem, SpecDiagnostic) for problem in found)
    return [problem for problem in found if isinstance(problem, SpecDiagnostic)]


# (spec, line, field with value, summary, hint); "" for a hint that is not there.
TABLE = {
    "misspelt field": (
        "featuregates: {}",
        3,
        "featuregates",
        "unknown field `featuregates`",
        "did you mean `featureGates`?",
    ),
    "misspelt nested field": (
        "controlPlaneConfiguration:\n  kubeApiServer: {}",
        4,
        "controlPlaneConfiguration.kubeApiServer",
        "unknown field `kubeApiServer`",
        "did you mean `kubeAPIServer`?",
    ),
    "field at the wrong depth": (
        "kubeAPIServer: {}",
        3,
        "kubeAPIServer",
        "unknown field `kubeAPIServer`",
        "`kubeAPIServer` belongs at `controlPlaneConfiguration.kubeAPIServer`",
    ),
    "field nobody knows": ("registry:\n  zzz: 1", 4, "registry.zzz", "unknown field `zzz`", "known fields: deleteData"),
    "snake case": (
        "feature_gates: {}",
        3,
        "feature_gates",
        "unknown field `feature_gates`",
        "did you mean `featureGates`?",
    ),
    "number for text": (
        "localRegistryName: 5",
        3,
        "localRegistryName = 5",
        "must be text, not a number",
        'write it in quotes: `"5"`',
    ),
    "boolean for text": (
        "localRegistryName: true",
        3,
        "localRegistryName = true",
        "must be text, not true or false",
        'write it in quotes: `"true"`',
    ),
    "text for a number": (
        'localRegistryPort: "5000"',
        3,
        'localRegistryPort = "5000"',
        "must be a whole number, not text",
        "write it without quotes: `5000`",
    ),
    "fraction for a number": (
        "localRegistryPort: 5000.5",
        3,
        "localRegistryPort = 5000.5",
        "must be a whole number, not a fraction",
        "",
    ),
    "text for a switch": (
        'registry: {deleteData: "true"}',
        3,
        'registry.deleteData = "true"',
        "must be true or false, not text",
        "write it without quotes: `true`",
    ),
    "text for a list": (
        "preCritCommands: crit version",
        3,
        'preCritCommands = "crit version"',
        "must be a list, not text",
        "write it as a list: `- crit version`",
    ),
    "map for a list": ("files: {path: /a}", 3, "files", "must be a list, not a map", "begin each item with `- `"),
    "list for a map": (
        "featureGates: [Krustlet]",
        3,
        "featureGates",
        "must be a map, not a list",
        "write `name: value` lines below it",
    ),
    "text for a section": (
        "metadata: cinder",
        3,
        'metadata = "cinder"',
        "must be a map, not text",
        "write `name: value` lines below it",
    ),
    "null in a map of text": (
        "registryMirrors:\n  docker.io:",
        4,
        'registryMirrors."docker.io"',
        "must be a list, not nothing",
        "",
    ),
    "port out of range": ("localRegistryPort: 70000", 3, "localRegistryPort = 70000", "must be at most 65535", ""),
    "octal-looking port": (
        "localRegistryPort: 05000",
        3,
        "localRegistryPort = 05000",
        "number with a leading zero",
        "write 5000",
    ),
    "unknown gate": (
        "featureGates:\n  LocalRegistri: true",
        4,
        "featureGates.LocalRegistri",
        "unknown feature gate `LocalRegistri`",
        "did you mean `LocalRegistry`?",
    ),
    "unknown provider": (
        "provider: dokcer",
        3,
        'provider = "dokcer"',
        "`provider` cannot be `dokcer`",
        "did you mean `docker`?",
    ),
    "provider as a list": (
        "provider: [docker]",
        3,
        "provider",
        "must be one of process, docker, external, not a list",
        "",
    ),
    "cluster name with capitals": (
        "metadata: {name: My_Cluster}",
        3,
        'metadata.name = "My_Cluster"',
        "not a DNS label",
        "write `my-cluster`",
    ),
    "cluster name too long": (
        f"metadata: {{name: {'a' * 51}}}",
        3,
        f'metadata.name = "{"a" * 51}"',
        "cluster name too long",
        "",
    ),
    "version without v": (
        'kubernetesVersion: "1.36.3"',
        3,
        'kubernetesVersion = "1.36.3"',
        "not a Kubernetes version",
        "write v1.36.3",
    ),
    "version as a number": (
        "kubernetesVersion: 1.30",
        3,
        "kubernetesVersion = 1.30",
        "not a Kubernetes version",
        "write all three parts, as v1.30.0",
    ),
    "mirror without scheme": (
        'registryMirrors:\n  "myregistry.dev": "myregistry.dev"',
        4,
        'registryMirrors."myregistry.dev" = "myregistry.dev"',
        "registry mirror endpoint has no scheme",
        "write `http://myregistry.dev` for a plain-http registry",
    ),
    "mirror with a strange scheme": (
        "registryMirrors: {a.dev: 'ftp://a.dev'}",
        3,
        'registryMirrors."a.dev" = "ftp://a.dev"',
        "registry mirror endpoint is neither http nor https",
        "write `https://a.dev`",
    ),
    "mirror with a bad port": (
        "registryMirrors: {a.dev: 'http://a.dev:99999'}",
        3,
        'registryMirrors."a.dev" = "http://a.dev:99999"',
        "registry mirror endpoint is not a URL",
        "",
    ),
    "mirror with credentials": (
        "registryMirrors: {a.dev: 'https://me:pw@a.dev'}",
        3,
        'registryMirrors."a.dev"',
        "registry mirror endpoint with credentials",
        "put them into the Docker configuration (`docker login`) or an imagePullSecret",
    ),
    "mirror of a URL": (
        "registryMirrors: {'https://a.dev/': 'https://b.dev'}",
        3,
        'registryMirrors."https://a.dev/"',
        "registry host with a scheme",
        "write `a.dev`",
    ),
    "mirror of a repository": (
        "registryMirrors: {a.dev/team: 'https://b.dev'}",
        3,
        'registryMirrors."a.dev/team"',
        "registry host with a path",
        "write `a.dev`",
    ),
    "one bad mirror of several": (
        "registryMirrors:\n  a.dev:\n    - https://b.dev\n    - c.dev",
        6,
        'registryMirrors."a.dev"[1] = "c.dev"',
        "registry mirror endpoint has no scheme",
        "write `http://c.dev` for a plain-http registry",
    ),
    "file without content": (
        "files:\n  - path: /a",
        4,
        "files[0].content",
        "missing field `content`",
        "add `content:` to it",
    ),
    "file at a relative path": (
        "files:\n  - {path: etc/x, content: hi}",
        4,
        'files[0].path = "etc/x"',
        "must be an absolute path of a file",
        "",
    ),
    "file outside the node": (
        "files:\n  - {path: /a/../../b, content: hi}",
        4,
        'files[0].path = "/a/../../b"',
        "must not leave its directory",
        "",
    ),
    "permissions not octal": (
        'files:\n  - {path: /a, permissions: "0999", content: hi}',
        4,
        'files[0].permissions = "0999"',
        "not file permissions",
        'write them as `"0644"`',
    ),
    "permissions in decimal": (
        "files:\n  - {path: /a, permissions: 999, content: hi}",
        4,
        "files[0].permissions = 999",
        "not file permissions",
        'write them as `"0644"`',
    ),
    "unknown encoding": (
        "files:\n  - {path: /a, encoding: base32, content: hi}",
        4,
        'files[0].encoding = "base32"',
        "`encoding` cannot be `base32`",
        "did you mean `base64`?",
    ),
    "content not base64": (
        "files:\n  - {path: /a, encoding: base64, content: '*'}",
        4,
        "files[0].content",
        "content is not base64",
        "",
    ),
    "content not gzip": (
        "files:\n  - {path: /a, encoding: gzip+base64, content: aGk=}",
        4,
        "files[0].content",
        "content is not gzip",
        "",
    ),
    "gzip alone": (
        "files:\n  - {path: /a, encoding: gzip, content: aGk=}",
        4,
        "files[0].content",
        "`gzip` alone cannot be carried by YAML",
        "encode them (`gzip -c FILE | base64`) and write `encoding: gzip+base64`",
    ),
    "host path that is not there": (
        "files:\n  - {path: /a, encoding: hostpath, content: nowhere}",
        4,
        "files[0].content",
        "no such file",
        "paths are relative to the file that names them",
    ),
    "host path that is a directory": (
        "files:\n  - {path: /a, encoding: hostpath, content: .}",
        4,
        "files[0].content",
        "is a directory, not a file",
        "",
    ),
    "file given twice": (
        "files:\n  - {path: /a, content: hi}\n  - {path: /a, content: ho}",
        5,
        'files[1].path = "/a"',
        "file given twice",
        "",
    ),
    "bad range": (
        "controlPlaneConfiguration: {podSubnet: 10.0.0.0/99}",
        3,
        'controlPlaneConfiguration.podSubnet = "10.0.0.0/99"',
        "not a CIDR range",
        "",
    ),
    "range with host bits": (
        "controlPlaneConfiguration: {podSubnet: 10.10.1.0/16}",
        3,
        'controlPlaneConfiguration.podSubnet = "10.10.1.0/16"',
        "CIDR range with host bits set",
        "write `10.10.0.0/16`",
    ),
    "range over loopback": (
        "controlPlaneConfiguration: {podSubnet: 127.1.0.0/16}",
        3,
        'controlPlaneConfiguration.podSubnet = "127.1.0.0/16"',
        "`podSubnet` overlaps loopback (127.0.0.0/8)",
        "",
    ),
    "ranges that overlap": (
        "controlPlaneConfiguration:\n  podSubnet: 10.10.0.0/16\n  serviceSubnet: 10.10.128.0/20",
        5,
        "controlPlaneConfiguration.serviceSubnet",
        "`podSubnet` overlaps `serviceSubnet`",
        "choose ranges apart from each other",
    ),
    "range that overlaps a default": (
        "controlPlaneConfiguration:\n  podSubnet: 10.96.0.0/16",
        4,
        "controlPlaneConfiguration.podSubnet",
        "`podSubnet` overlaps `serviceSubnet`",
        "choose ranges apart from each other",
    ),
    "service range too large": (
        "controlPlaneConfiguration: {serviceSubnet: 11.0.0.0/8}",
        3,
        'controlPlaneConfiguration.serviceSubnet = "11.0.0.0/8"',
        "`serviceSubnet` has a bad size",
        "",
    ),
    "port used twice": (
        """
        featureGates: {LocalRegistry: true}
        localRegistryPort: 6000
        controlPlaneConfiguration:
          kubeAPIServer: {bindPort: 6000}
        """,
        6,
        "controlPlaneConfiguration.kubeAPIServer.bindPort = 6000",
        "port 6000 is used twice",
        "give one of them another port",
    ),
    "port of a default used": (
        "featureGates: {LocalRegistry: true}\ncontrolPlaneConfiguration:\n  kubeAPIServer: {bindPort: 5000}",
        5,
        "controlPlaneConfiguration.kubeAPIServer.bindPort = 5000",
        "port 5000 is used twice",
        "give one of them another port",
    ),
    "flag with dashes": (
        "controlPlaneConfiguration:\n  kubeScheduler:\n    extraArgs: {--v: 2}",
        5,
        'controlPlaneConfiguration.kubeScheduler.extraArgs."--v"',
        "flag names have no leading dashes",
        "write `v`",
    ),
    "flag with a map": (
        "controlPlaneConfiguration:\n  kubeScheduler:\n    extraArgs: {v: {}}",
        5,
        "controlPlaneConfiguration.kubeScheduler.extraArgs.v",
        "must be text, not a map",
        "",
    ),
    "feature gates set twice": (
        """
        controlPlaneConfiguration:
          kubeScheduler:
            featureGates: {A: true}
            extraArgs: {feature-gates: B=true}
        """,
        6,
        "controlPlaneConfiguration.kubeScheduler.extraArgs.feature-gates",
        "feature gates set twice",
        "keep `featureGates`",
    ),
    "name that cannot be in a certificate": (
        "controlPlaneConfiguration:\n  kubeAPIServer:\n    extraSans: [dev.local, 'no spaces']",
        5,
        'controlPlaneConfiguration.kubeAPIServer.extraSans[1] = "no spaces"',
        "neither a host name nor an IP address",
        "",
    ),
    "audit policy of another kind": (
        "controlPlaneConfiguration:\n  kubeAPIServer:\n    auditPolicy: {apiVersion: v1, kind: Policy}",
        5,
        "controlPlaneConfiguration.kubeAPIServer.auditPolicy",
        "not an audit policy",
        "write audit.k8s.io/v1 Policy",
    ),
    "unknown arch": (
        "wasmNodes:\n  - arch: wasm32-wassi",
        4,
        'wasmNodes[0].arch = "wasm32-wassi"',
        "`arch` cannot be `wasm32-wassi`",
        "did you mean `wasm32-wasi`?",
    ),
    "two nodes of one name": (
        "wasmNodes:\n  - {}\n  - {port: 3005}",
        5,
        "wasmNodes[1]",
        "two wasm nodes named `cinder-wasi`",
        "give each a `name` of its own",
    ),
    "label that the node sets itself": (
        "wasmNodes:\n  - labels: {kubernetes.io/arch: x}",
        4,
        'wasmNodes[0].labels."kubernetes.io/arch"',
        "label that the wasm node sets itself",
        "remove it",
    ),
    "label that no node may set": (
        "wasmNodes:\n  - labels: {node-role.kubernetes.io/agent: ''}",
        4,
        'wasmNodes[0].labels."node-role.kubernetes.io/agent"',
        "label that Kubernetes does not let a node set",
        "use a prefix of your own, as `example.com/agent`",
    ),
    "taint without effect": (
        "wasmNodes:\n  - taints: [{key: a}]",
        4,
        "wasmNodes[0].taints[0].effect",
        "missing field `effect`",
        "add `effect:` to it",
    ),
    "artifact without registry": (
        "artifacts:\n  - {name: a, path: a.wasm, build: {command: make}, reference: 'hello:v1'}",
        4,
        'artifacts[0].reference = "hello:v1"',
        "reference without a registry",
        "write `localhost:5000/hello:v1` for the cluster's own registry",
    ),
    "artifact without tag": (
        "artifacts:\n  - {name: a, path: a.wasm, build: {command: make}, reference: 'localhost:5000/hello'}",
        4,
        'artifacts[0].reference = "localhost:5000/hello"',
        "reference without a tag",
        "write `localhost:5000/hello:v1`",
    ),
    "artifact that is not there": (
        "artifacts:\n  - {name: a, path: a.wasm, reference: 'localhost:5000/hello:v1'}",
        4,
        "artifacts[0].path",
        "no such file",
        "build it first, or say how with `build:`",
    ),
    "manifest of nothing": ("manifests:\n  - {}", 4, "manifests[0]", "a manifest has either `path` or `inline`", ""),
    "object without inline": (
        "manifests:\n  - {apiVersion: v1, kind: ConfigMap}",
        4,
        "manifests[0]",
        "a Kubernetes object without `inline:`",
        "put the object below `inline:`",
    ),
    "inline object without kind": (
        "manifests:\n  - inline: {apiVersion: v1}",
        4,
        "manifests[0].inline",
        "a Kubernetes object needs `kind`",
        "",
    ),
    "inline object without name": (
        "manifests:\n  - inline: {apiVersion: v1, kind: ConfigMap}",
        4,
        "manifests[0].inline",
        "ConfigMap without `metadata.name`",
        "",
    ),
    "manifest that is not there": (
        "manifests:\n  - path: no.yaml",
        4,
        "manifests[0].path",
        "no such file",
        "paths are relative to the file that names them",
    ),
    "manifest by URL": (
        "manifests:\n  - path: https://example.com/a.yaml",
        4,
        "manifests[0].path",
        "no such file",
        "download it and keep it beside the spec: a plan has to know what it will apply",
    ),
    "renewal longer than life": (
        "certificates:\n  validityDays: 10",
        3,
        "certificates",
        "`renewBeforeDays` is not shorter than `validityDays`",
        "",
    ),
    "unknown kind in a pattern": (
        "lifecycle:\n  wasm_nod.*: {protect: true}",
        4,
        'lifecycle."wasm_nod.*"',
        "no resource has an address like `wasm_nod.*`",
        "did you mean `wasm_node.*`?",
    ),
    "kind without a name": (
        "lifecycle:\n  registry: {protect: true}",
        4,
        "lifecycle.registry",
        "`registry` names no resource",
        "write `registry.*` for all of them",
    ),
    "duplicate key": (
        "metadata: {name: a}\nprovider: process\nmetadata: {name: b}",
        5,
        "metadata",
        "duplicate key `metadata`",
        "",
    ),
    "unknown tag": (
        "metadata: {name: !vault x}",
        3,
        "metadata.name",
        "unknown tag `!vault`",
        "remove the tag; a spec holds plain YAML values",
    ),
    "infinite number": ("localRegistryPort: .inf", 3, "localRegistryPort", "not a finite number", ""),
}


@pytest.mark.parametrize("case", TABLE)
def test_a_mistake_is_named_where_it_stands_with_a_way_out(case: str, tmp_path: Path) -> None:
    text, line, field, summary, hint = TABLE[case]
    found = problems(text, tmp_path)
    assert [(problem.source, problem.field, problem.summary, problem.hint) for problem in found] == [
        (f"cluster.yaml:{line}", field, summary, hint)
    ]


def test_all_problems_are_reported_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    found = problems(
        """
        metadata: {name: My_Cluster}
        localRegistryPort: "5000"
        file: []
        files:
          - path: /a
          - {path: /b, content: hi}
          - {path: /b, content: ho}
        controlPlaneConfiguration:
          podSubnet: 10.96.0.0/16
          node: {kubelet: {maxPods: 50}}
        extraMounts:
          - {hostPath: a, containerPath: /a}
        lifecycle:
          nodes.*: {}
        """,
        tmp_path,
    )
    assert [(problem.source.removeprefix("cluster.yaml:"), problem.summary) for problem in found] == [
        ("3", "not a DNS label"),
        ("4", "must be a whole number, not text"),
        ("5", "unknown field `file`"),
        ("7", "missing field `content`"),
        ("9", "file given twice"),
        ("11", "`podSubnet` overlaps `serviceSubnet`"),
        ("12", "the process provider cannot do `node.kubelet`"),
        ("13", "the process provider cannot do `extraMounts`"),
        ("16", "no resource has an address like `nodes.*`"),
    ]


def test_paths_keep_their_index_when_an_earlier_item_is_at_fault(tmp_path: Path) -> None:
    found = problems(
        """
        files:
          - {path: a, content: hi}
          - {path: /b, content: hi}
          - {path: /b, content: ho}
        """,
        tmp_path,
    )
    assert [problem.path for problem in found] == [("files", 0, "path"), ("files", 2, "path")]
    assert found[1].detail == "`files[1].path` (cluster.yaml:5) has it already"


def test_warnings_wait_until_there_are_no_errors(tmp_path: Path) -> None:
    found = problems(
        """
        featureGates: {LocalRegistri: true}
        artifacts:
          - {name: a, path: a.wasm, build: {command: make}, reference: "localhost:5000/a:v1"}
        """,
        tmp_path,
    )
    assert [problem.summary for problem in found] == ["unknown feature gate `LocalRegistri`"]


@pytest.mark.parametrize(
    "text",
    [
        "files:\n  - {path: /a, encoding: base64, content: 'TOPSECRET*'}",
        "files:\n  - {path: /a, content: [TOPSECRET]}",
        "workerConfiguration: {bootstrapToken: [TOPSECRET]}",
        "manifests:\n  - inline: TOPSECRET",
        "registryMirrors: {a.dev: 'https://me:TOPSECRET@a.dev'}",
        "registryMirrors: {a.dev: 'me:TOPSECRET@a.dev'}",
        "registryMirrors: {a.dev: 'ftp://me:TOPSECRET@a.dev'}",
    ],
)
def test_what_may_be_secret_is_not_repeated(text: str, tmp_path: Path) -> None:
    found = problems(text, tmp_path)
    assert "TOPSECRET" not in repr(found)
