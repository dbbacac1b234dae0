"""Kubernetes objects that a spec names: which are found, where they stand, what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cinderctl.core.diagnostics import Diagnostic, SpecError
from cinderctl.spec.load import Loaded, load

SPEC = "apiVersion: cinder.crit.sh/v1alpha1\nkind: ClusterConfiguration\nmanifests:\n  - path: k8s.yaml\n"


def config_map(name: str) -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n"


def loaded(cwd: Path, manifest: str, spec: str = SPEC) -> Loaded:
    (cwd / "cluster.yaml").write_text(spec)
    (cwd / "k8s.yaml").write_text(manifest)
    return load([], cwd=cwd)


def errors(cwd: Path, manifest: str, spec: str = SPEC) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        loaded(cwd, manifest, spec)
    return caught.value.diagnostics


def test_a_file_may_hold_several_objects_each_with_its_line(tmp_path: Path) -> None:
    found = loaded(tmp_path, f"# two\n{config_map('a')}---\n---\n{config_map('b')}")
    assert [(item.kind, item.name, item.namespace, item.source) for item in found.objects] == [
        ("ConfigMap", "a", "", "k8s.yaml:2"),
        ("ConfigMap", "b", "", "k8s.yaml:8"),
    ]
    assert found.files == (tmp_path / "cluster.yaml", tmp_path / "k8s.yaml")


def test_lists_are_taken_apart_and_json_is_read(tmp_path: Path) -> None:
    items = [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "n"}} for name in "ab"]
    found = loaded(tmp_path, json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1))
    assert [item.identity for item in found.objects] == [("", "Secret", "n", "a"), ("", "Secret", "n", "b")]
    assert [item.value for item in found.objects] == items


def test_escapes_of_json_beyond_the_first_plane_are_one_character(tmp_path: Path) -> None:
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"\U0001f525": "\U0001f525"}}
    assert loaded(tmp_path, json.dumps(item)).objects[0].value == item
    (problem,) = errors(tmp_path, config_map("a") + 'data: {x: "\\ud800"}\n')
    assert (problem.summary, problem.source) == ("text with half a character", "k8s.yaml:5")


def test_a_directory_gives_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for name in ("b.yml", "a.yaml", "c.json", "README.md"):
        (tmp_path / "all" / name).write_text(
            config_map(name[0].lower())
            if name != "c.json"
            else '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}'
        )
    found = loaded(tmp_path, "", SPEC.replace("k8s.yaml", "all"))
    assert [item.source for item in found.objects] == ["all/a.yaml:1", "all/b.yml:1", "all/c.json:1"]


def test_an_empty_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (problem,) = errors(tmp_path, "", SPEC.replace("k8s.yaml", "all"))
    assert (problem.summary, problem.source) == ("no manifests in this directory", "cluster.yaml:4")


def test_inline_objects_stand_where_the_spec_says_them(tmp_path: Path) -> None:
    spec = SPEC + "  - inline: {apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}\n"
    found = loaded(tmp_path, config_map("a"), spec)
    assert found.objects[1].source == "cluster.yaml:5"
    assert found.objects[1].identity == ("apps", "Deployment", "", "web")


@pytest.mark.parametrize(
    ("manifest", "line", "summary", "hint"),
    [
        ("kind: ConfigMap\nmetadata: {name: a}\n", 1, "a Kubernetes object needs `apiVersion`", ""),
        ("apiVersion: v1\nkind: 3\nmetadata: {name: a}\n", 2, "a Kubernetes object needs `kind`", ""),
        ("apiVersion: v1\nkind: Pod\n", 1, "Pod without `metadata.name`", ""),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  generateName: a-\n",
            3,
            "Pod without `metadata.name`",
            "write a fixed `name`",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: 5\n",
            3,
            "`metadata.name` must be text",
            'write it in quotes: `"5"`',
        ),
        ("- a\n", 1, "not a Kubernetes object", ""),
        ("a: [\n", 2, "not valid YAML", ""),
        ("", 1, "manifest is empty", ""),
        (f"{config_map('a')}---\nname: {{{{ .Values.name }}}}\n", 6, "a key must be text", ""),
        (
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n",
            2,
            "a Kustomization is no object of the API",
            "write its output to a file (`kubectl kustomize DIR > all.yaml`) and name that",
        ),
        ("apiVersion: v1\napiVersion: v2\nkind: Pod\nmetadata: {name: a}\n", 2, "duplicate key `apiVersion`", ""),
        (
            f"{config_map('a')}---\n{config_map('a')}",
            6,
            "ConfigMap `a` is given twice",
            "",
        ),
    ],
)
def test_mistakes_are_named_in_the_manifests_own_file(
    manifest: str, line: int, summary: str, hint: str, tmp_path: Path
) -> None:
    problem = errors(tmp_path, manifest)[0]
    assert (problem.source, problem.summary, problem.hint) == (f"k8s.yaml:{line}", summary, hint)


def test_the_same_object_in_two_places_names_the_other(tmp_path: Path) -> None:
    spec = SPEC + "  - inline: {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n"
    (problem,) = errors(tmp_path, config_map("a"), spec)
    assert (problem.source, problem.detail) == ("cluster.yaml:5", "The other one is at k8s.yaml:1")


def test_mistakes_of_manifests_and_of_the_spec_come_together(tmp_path: Path) -> None:
    found = errors(tmp_path, "apiVersion: v1\nkind: Pod\n", SPEC + "metadat: {}\n")
    assert [problem.source for problem in found] == ["cluster.yaml:5", "k8s.yaml:1"]
