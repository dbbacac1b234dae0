"""The JSON Schema of a spec, for editors (`# yaml-language-server: $schema=...`) and `cinderctl schema`."""

from __future__ import annotations

import json
from typing import Any

from cinderctl.spec.gates import SWITCHABLE
from cinderctl.spec.v1alpha1 import ClusterConfiguration

__all__ = ["schema", "schema_text"]


def schema() -> dict[str, Any]:
    """Draft 2020-12. An empty field (`files:`) is valid, as it is when loaded."""
    generated = ClusterConfiguration.model_json_schema(by_alias=True, mode="validation")
    gates = {"type": "object", "propertyNames": {"enum": list(SWITCHABLE)}}
    generated["properties"]["featureGates"] |= gates
    for model in (generated, *generated["$defs"].values()):
        required = model.get("required", ())
        model["properties"] = {
            name: value if name in required else _or_empty(value) for name, value in model.get("properties", {}).items()
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_standard(_untitled(generated))}


def schema_text() -> str:
    """The schema as the file that is committed: docs/reference/cluster.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _or_empty(value: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {key: value[key] for key in ("description", "default") if key in value}
    rest = {key: item for key, item in value.items() if key not in described}
    if isinstance(rest.get("anyOf"), list):
        null = {"type": "null"}
        return {**described, **rest, "anyOf": [*(item for item in rest["anyOf"] if item != null), null]}
    return {**described, "anyOf": [rest, {"type": "null"}]}


# pydantic writes constraints behind a validator under its own names, which no editor knows.
_STANDARD = {"ge": "minimum", "le": "maximum"}


def _standard(value: Any) -> Any:
    """Ranges under JSON Schema's names. (A name that maps to a map is a property.)"""
    if isinstance(value, list):
        return [_standard(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {_STANDARD.get(key, key) if isinstance(item, int) else key: _standard(item) for key, item in value.items()}


def _untitled(value: Any) -> Any:
    """Without pydantic's generated titles, which only repeat the names. (A title that is a map is a property.)"""
    if isinstance(value, dict):
        return {key: _untitled(item) for key, item in value.items() if key != "title" or not isinstance(item, str)}
    if isinstance(value, list):
        return [_untitled(item) for item in value]
    return value
