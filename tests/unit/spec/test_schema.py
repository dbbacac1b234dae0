"""The published JSON Schema: current, complete, and of one mind with the loader about the examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from cinderctl.spec.load import load
from cinderctl.spec.messages import fields_at
from cinderctl.spec.schema import schema, schema_text
from cinderctl.spec.tree import Tree
from cinderctl.spec.v1alpha1 import ClusterConfiguration
from cinderctl.spec.written import as_kubernetes
from cinderctl.spec.yamltree import parse_documents

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = ROOT / "docs" / "reference" / "cluster.schema.json"
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*/cluster.yaml"))


def plain(path: Path) -> Any:
    documents, problems = parse_documents(path.read_text(), path.name)
    assert not problems
    return as_kubernetes(Tree.of_document(documents[0], path.name, path.parent).value)


def test_the_committed_schema_is_current() -> None:
    assert SCHEMA.read_text() == schema_text(), (
        "write the output of `cinderctl schema` to docs/reference/cluster.schema.json"
    )


def test_it_is_a_schema_of_its_draft() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_every_example_is_accepted_by_loader_and_schema_and_points_to_it(path: Path) -> None:
    load([path], cwd=ROOT)
    jsonschema.validate(plain(path), schema(), cls=jsonschema.Draft202012Validator)
    directive = path.read_text().splitlines()[0]
    assert directive.startswith("# yaml-language-server: $schema=")
    assert (path.parent / directive.partition("$schema=")[2]).resolve() == SCHEMA


@pytest.mark.parametrize(
    "wrong",
    [
        {"featuregates": {}},
        {"featureGates": {"Krustlett": True}},
        {"provider": "podman"},
        {"localRegistryPort": "5000"},
        {"wasmNodes": [{"arch": "x86"}]},
        {"files": [{"path": "/a"}]},
    ],
)
def test_an_editor_marks_mistakes(wrong: dict[str, Any]) -> None:
    spec = {"apiVersion": "cinder.crit.sh/v1alpha1", "kind": "ClusterConfiguration", **wrong}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec, schema(), cls=jsonschema.Draft202012Validator)


def models() -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = [ClusterConfiguration]
    paths: list[tuple[str | int, ...]] = [()]
    for path in paths:
        for name, model in (fields_at(path) or {}).items():
            if model is not None:
                paths.append((*path, name))
                found.append(model)
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_every_field_is_described_and_named_as_in_yaml(model: type[BaseModel]) -> None:
    assert model.__doc__
    for name, info in model.model_fields.items():
        assert info.description, name
        assert info.description.endswith((".", ".)")), name
        assert "_" not in str(info.alias), name


def test_the_example_of_everything_uses_every_part_of_a_spec() -> None:
    refused = {"extraMounts", "extraPortMappings", "workerConfiguration"}
    named = {info.alias for info in ClusterConfiguration.model_fields.values()}
    used = set(json.loads(json.dumps(plain(ROOT / "examples" / "everything" / "cluster.yaml"))))
    assert used == named - refused


def test_the_seed_of_the_krustlet_demo_is_accepted_with_one_remark() -> None:
    loaded = load([ROOT / "examples" / "krustlet-seed" / "cluster.yaml"], cwd=ROOT)
    assert [node.name for node in loaded.config.effective_wasm_nodes] == ["cinder-wasi", "cinder-wascc"]
    assert loaded.config.registry_enabled
    assert [problem.path[-1] for problem in loaded.warnings] == ["affinity"]
