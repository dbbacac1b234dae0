"""Finding, reading, overlaying: which files make the spec, whose paths are relative to what, where things stand."""

from __future__ import annotations

import io
import json
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderctl.core.diagnostics import Diagnostic, SpecError
from cinderctl.spec.load import Loaded, load

HEADER = "apiVersion: cinder.crit.sh/v1alpha1\nkind: ClusterConfiguration\n"


def write(directory: Path, **files: str) -> None:
    """Write `name.yaml` for each keyword; the spec's header goes in front of the first."""
    directory.mkdir(exist_ok=True)
    for index, (name, text) in enumerate(files.items()):
        (directory / f"{name}.yaml").write_text((HEADER if index == 0 else "") + dedent(text).lstrip("\n"))


def only_problem(cwd: Path, *files: str, stdin: str | None = None) -> Diagnostic:
    with pytest.raises(SpecError) as caught:
        load(files, cwd=cwd, stdin=None if stdin is None else io.StringIO(stdin))
    (problem,) = caught.value.diagnostics
    return problem


def test_cluster_yaml_comes_before_cinder_yaml(tmp_path: Path) -> None:
    write(tmp_path, cinder="metadata: {name: second}")
    assert load([], cwd=tmp_path).config.name == "second"
    write(tmp_path, cluster="metadata: {name: first}")
    loaded = load([], cwd=tmp_path)
    assert loaded.config.name == "first"
    assert loaded.files == (tmp_path / "cluster.yaml",)


def test_no_file_says_which_names_were_tried(tmp_path: Path) -> None:
    problem = only_problem(tmp_path)
    assert problem.summary == "no spec here"
    assert problem.detail == f"There is no `cluster.yaml` or `cinder.yaml` in {tmp_path}"
    assert problem.hint == "name the spec with `-f FILE`"


def test_a_named_file_that_is_not_there_offers_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, cluster="")
    problem = only_problem(tmp_path, "clutser.yaml")
    assert (problem.summary, problem.source, problem.hint) == (
        "no such file",
        "clutser.yaml",
        "did you mean `cluster.yaml`?",
    )


def test_a_directory_is_not_a_spec_but_may_hold_one(tmp_path: Path) -> None:
    write(tmp_path / "dev", cluster="")
    problem = only_problem(tmp_path, "dev")
    assert (problem.summary, problem.hint) == ("the spec is a directory", "write `-f dev/cluster.yaml`")


def test_standard_input_is_read_with_paths_relative_to_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello")
    text = HEADER + "files:\n  - {path: /etc/motd, encoding: hostpath, content: motd}\n"
    loaded = load(["-"], cwd=tmp_path, stdin=io.StringIO(text))
    assert loaded.file_data(0) == b"hello"
    assert loaded.source(("files", 0)) == "<stdin>:4"
    assert only_problem(tmp_path, "-").summary == "nothing to read from standard input"


def test_problems_of_standard_input_say_so(tmp_path: Path) -> None:
    assert only_problem(tmp_path, "-", stdin=HEADER + "file: []\n").source == "<stdin>:3"


@pytest.mark.parametrize(
    ("content", "summary", "source"),
    [
        (b"", "the spec is empty", "cluster.yaml:1"),
        (b"# only a comment\n", "the spec is empty", "cluster.yaml:1"),
        (b"- a\n", "the spec is not a map", "cluster.yaml:1"),
        (b"just text\n", "the spec is not a map", "cluster.yaml:1"),
        (b"\xff\xfe\x00a", "the spec is not text", "cluster.yaml"),
        (b"a: [1, 2\nb: 3\n", "not valid YAML", "cluster.yaml:2"),
        (b"a:\n\t- b\n", "not valid YAML", "cluster.yaml:2"),
        (b"a: b: c\n", "not valid YAML", "cluster.yaml:1"),
        (b"a: 1\nb: \x01\n", "not valid YAML", "cluster.yaml:2"),
    ],
)
def test_a_file_that_is_no_spec_is_one_located_problem(
    content: bytes, summary: str, source: str, tmp_path: Path
) -> None:
    (tmp_path / "cluster.yaml").write_bytes(content)
    problem = only_problem(tmp_path)
    assert (problem.summary, problem.source) == (summary, source)


def test_tabs_are_explained(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(HEADER + "metadata:\n\tname: a\n")
    assert only_problem(tmp_path).hint == "indent with spaces: YAML does not allow tabs"


def test_several_documents_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(HEADER + "---\nkind: Pod\n")
    problem = only_problem(tmp_path)
    assert (problem.summary, problem.source) == ("several documents in one file", "cluster.yaml:4")
    assert problem.detail == "cluster.yaml has 2; a spec is one document"


def test_empty_documents_around_the_spec_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(f"---\n{HEADER}---\n")
    assert load([], cwd=tmp_path).config.name == "cinder"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_bytes(b"\xef\xbb\xbf" + HEADER.replace("\n", "\r\n").encode() + b"file: 1\r\n")
    assert only_problem(tmp_path).source == "cluster.yaml:3"


@pytest.mark.parametrize(
    ("header", "summary", "hint"),
    [
        ("kind: ClusterConfiguration\n", "missing field `apiVersion`", "write `apiVersion: cinder.crit.sh/v1alpha1`"),
        ("apiVersion: cinder.crit.sh/v1alpha1\n", "missing field `kind`", "write `kind: ClusterConfiguration`"),
        (
            "apiVersion: cinder.crit.sh/v1alpha2\nkind: ClusterConfiguration\n",
            "`apiVersion` is not `cinder.crit.sh/v1alpha1`",
            "write `apiVersion: cinder.crit.sh/v1alpha1`",
        ),
        (
            "apiVersion: cinder.crit.sh/v1alpha1\nkind: ClusterConfig\n",
            "`kind` is not `ClusterConfiguration`",
            "write `kind: ClusterConfiguration`",
        ),
    ],
)
def test_the_header_is_required_and_the_nearest_is_offered(
    header: str, summary: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "cluster.yaml").write_text(header)
    problem = only_problem(tmp_path)
    assert (problem.summary, problem.hint) == (summary, hint)


def test_a_deployment_is_not_read_as_a_spec(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: x}\n")
    with pytest.raises(SpecError) as caught:
        load([], cwd=tmp_path)
    assert [problem.path for problem in caught.value.diagnostics] == [("apiVersion",), ("kind",)]
    assert caught.value.diagnostics[1].hint == "Kubernetes objects go into a file of their own, named in `manifests`"


def test_later_files_overlay_earlier_ones(tmp_path: Path) -> None:
    write(
        tmp_path,
        base="""
        metadata: {name: base}
        featureGates: {LocalRegistry: true, Krustlet: true}
        preCritCommands: [a, b]
        registryMirrors: {a.dev: https://a, b.dev: https://b}
        localRegistryPort: 5001
        """,
        dev="""
        metadata: {name: dev}
        featureGates: {Krustlet: false}
        preCritCommands: [c]
        registryMirrors: {a.dev: null, c.dev: https://c}
        localRegistryPort: null
        """,
    )
    config = load(["base.yaml", "dev.yaml"], cwd=tmp_path).config
    assert config.name == "dev"
    assert dict(config.feature_gates) == {"LocalRegistry": True, "Krustlet": False}
    assert config.pre_crit_commands == ("c",)
    assert dict(config.registry_mirrors) == {"b.dev": ("https://b",), "c.dev": ("https://c",)}
    assert config.local_registry_port == 5000


def test_problems_and_places_name_the_file_that_says_it(tmp_path: Path) -> None:
    write(tmp_path, base="featureGates: {Krustlet: true}\nlocalRegistryPort: 1\n", dev="localRegistryPort: 0\n")
    problem = only_problem(tmp_path, "base.yaml", "dev.yaml")
    assert problem.source == "dev.yaml:1"
    (tmp_path / "dev.yaml").write_text("localRegistryPort: 2\nfeatureGates:\n  LocalRegistry: true\n")
    loaded = load(["base.yaml", "dev.yaml"], cwd=tmp_path)
    assert loaded.source(("localRegistryPort",)) == "dev.yaml:1"
    assert loaded.source(("featureGates", "LocalRegistry")) == "dev.yaml:3"
    assert loaded.source(("featureGates", "Krustlet")) == "base.yaml:3"


def test_an_overlay_of_another_kind_is_refused(tmp_path: Path) -> None:
    write(tmp_path, base="", dev="kind: Pod\n")
    assert only_problem(tmp_path, "base.yaml", "dev.yaml").source == "dev.yaml:1"


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    write(tmp_path / "one", cluster="binaries: {directory: bin}\nkubeconfig: {path: ~/kube}\n")
    write(tmp_path / "two", dev="")
    (tmp_path / "one" / "bin").mkdir()
    (tmp_path / "two" / "a.wasm").write_bytes(b"")
    (tmp_path / "two" / "dev.yaml").write_text(
        "artifacts:\n"
        "  - {name: a, path: a.wasm, reference: 'localhost:5000/a:v1'}\n"
        "  - {name: b, path: ../b.wasm, build: {command: make}, reference: 'localhost:5000/b:v1'}\n"
        "  - {name: c, path: c.wasm, build: {command: [make, c], directory: .}, reference: 'localhost:5000/c:v1'}\n"
    )
    config = load(["one/cluster.yaml", "two/dev.yaml"], cwd=tmp_path, home=Path("/home/me")).config
    assert config.binaries.directory == str(tmp_path / "one" / "bin")
    assert config.kubeconfig.path == "/home/me/kube"
    a, b, c = config.artifacts
    assert (a.path, b.path) == (str(tmp_path / "two" / "a.wasm"), str(tmp_path / "b.wasm"))
    assert b.build is not None
    assert b.build.directory == str(tmp_path / "two")
    assert b.build.command == ("/bin/sh", "-c", "make")
    assert c.build is not None
    assert c.build.directory == str(tmp_path / "two")
    assert c.build.command == ("make", "c")


def test_a_name_given_from_outside_holds_and_is_checked(tmp_path: Path) -> None:
    write(tmp_path, cluster="metadata: {name: inside}\n")
    loaded = load([], cwd=tmp_path, name="outside")
    assert loaded.config.name == "outside"
    assert loaded.source(("metadata", "name")) == "--name"
    with pytest.raises(SpecError) as caught:
        load([], cwd=tmp_path, name="Out_Side")
    assert caught.value.diagnostics[0].source == "--name"


def test_what_a_gate_implies_stands_where_the_gate_does(tmp_path: Path) -> None:
    write(tmp_path, cluster="featureGates:\n  LocalRegistry: true\n  AllAlpha: true\n  MachineAPI: false\n")
    loaded = load([], cwd=tmp_path)
    assert loaded.source(("localRegistryPort",)) == "cluster.yaml:4"
    assert loaded.source(("wasmNodes", 0)) == "cluster.yaml:5"
    assert loaded.source(("storageClass",)) == "cluster.yaml:1"


def digest(directory: Path, text: str) -> str:
    write(directory, cluster=text)
    return load([], cwd=directory).digest


def test_the_digest_is_of_what_the_spec_says(tmp_path: Path) -> None:
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
    for directory in (tmp_path / "one", tmp_path / "two"):
        directory.mkdir()
        (directory / "a.yaml").write_text(manifest)
    spec = "metadata: {name: a}\nmanifests: [{path: a.yaml}]\n"
    first = digest(tmp_path / "one", spec)
    assert digest(tmp_path / "two", "# moved\nmanifests:\n  - path: a.yaml\nmetadata:\n  name: a\n") == first
    assert digest(tmp_path / "two", "provider: process\n" + spec) == first, "a default written out says nothing new"
    assert digest(tmp_path / "one", spec.replace("name: a", "name: b")) != first
    (tmp_path / "two" / "a.yaml").write_text(manifest + "data: {x: y}\n")
    assert digest(tmp_path / "two", spec) != first


def test_merge_keys_and_aliases_work_and_keep_their_lines(tmp_path: Path) -> None:
    write(
        tmp_path,
        cluster="""
        wasmNodes:
          - &node
            name: one
            maxPods: 7
          - <<: *node
            name: two
        """,
    )
    loaded = load([], cwd=tmp_path)
    assert [(node.name, node.max_pods) for node in loaded.config.wasm_nodes or ()] == [("one", 7), ("two", 7)]
    assert loaded.source(("wasmNodes", 1, "maxPods")) == "cluster.yaml:6"
    assert loaded.source(("wasmNodes", 1, "name")) == "cluster.yaml:8"


def test_an_alias_bomb_and_an_alias_of_itself_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "cluster.yaml").write_text("\n".join(lines) + "\n")
    with pytest.raises(SpecError) as caught:
        load([], cwd=tmp_path)
    assert caught.value.diagnostics[0].summary == "too many values"
    (tmp_path / "cluster.yaml").write_text(HEADER + "preCritCommands: &a [*a]\n")
    with pytest.raises(SpecError) as caught:
        load([], cwd=tmp_path)
    assert caught.value.diagnostics[0].summary == "an alias contains itself"


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(HEADER + "files: " + "[" * 600)
    with pytest.raises(SpecError):
        load([], cwd=tmp_path)


_WORDS = st.sampled_from(
    [
        *(
            "files",
            "featureGates",
            "Krustlet",
            "wasmNodes",
            "name",
            "path",
            "content",
            "encoding",
            "hostpath",
            "metadata",
        ),
        *("manifests", "inline", "artifacts", "build", "lifecycle", "registryMirrors", "controlPlaneConfiguration"),
        *(
            "kubeAPIServer",
            "extraArgs",
            "podSubnet",
            "10.0.0.0/8",
            "labels",
            "taints",
            "command",
            "directory",
            "\0",
            "",
        ),
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _WORDS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS | st.text(), inner, max_size=4),
    max_leaves=12,
)


def try_loading(path: Path, text: str) -> Loaded | None:
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        return load([path], cwd=path.parent)
    except SpecError as error:
        unlocated = [problem for problem in error.diagnostics if not problem.source]
    assert unlocated == []
    return None


@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(_WORDS, _VALUES, max_size=5))
def test_any_value_is_loaded_or_explained(value: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> None:
    header = {"apiVersion": "cinder.crit.sh/v1alpha1", "kind": "ClusterConfiguration"}
    try_loading(tmp_path_factory.getbasetemp() / "any.yaml", json.dumps({**value, **header}))


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%@` \n\t0.~<"), max_size=40))
def test_any_text_is_loaded_or_explained(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    try_loading(tmp_path_factory.getbasetemp() / "any.yaml", HEADER + text)
