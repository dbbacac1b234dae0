"""What pydantic found, in the words of someone who writes YAML, with the nearest known name as a hint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cinderctl.spec.diagnostics import SpecDiagnostic, nearest, render_path
from cinderctl.spec.v1alpha1 import API_VERSION, KIND, ClusterConfiguration
from cinderctl.spec.written import Path, Word, WrittenFloat, WrittenInt

__all__ = ["explain", "fields_at", "shown_value"]

# Fields whose values are not repeated in messages: they hold what may be secret.
_PRIVATE = frozenset({"content", "bootstrapToken", "inline", "caKey"})

_CREDENTIALS = re.compile(r"://[^/\s]*@|:[^/\s]*@")

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "dict_type": "a map",
    "mapping_type": "a map",
    "model_type": "a map",
    "tuple_type": "a list",
    "list_type": "a list",
}


def explain(error: ValidationError, data: Any) -> list[SpecDiagnostic]:
    """One diagnostic for each problem; paths are those of the YAML `data` (no source yet)."""
    return [_explain(dict(item), data) for item in error.errors(include_url=False)]


def shown_value(value: Any, path: Path) -> str:
    """A value as it may stand in a message: JSON of a scalar, "" for what is long, nested or private."""
    if not _PRIVATE.isdisjoint(part for part in path if isinstance(part, str)):
        return ""
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text[:80]
    if value is None or isinstance(value, Mapping | list | tuple):
        return ""
    if isinstance(value, Word):
        return str(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 and not _CREDENTIALS.search(text) else ""


def fields_at(path: Path) -> Mapping[str, type[BaseModel] | None] | None:
    """The fields of the map at a path by YAML name, each with its model, if it is one; None where keys are free."""
    model: type[BaseModel] | None = ClusterConfiguration
    for part in path:
        if model is None:
            return None
        known = _fields(model)
        if isinstance(part, int) or part not in known:
            # A list's item or a free key: its model is that of the list or map.
            continue
        model = known[part]
    return _fields(model) if model else None


def _explain(item: dict[str, Any], data: Any) -> SpecDiagnostic:
    kind = str(item["type"])
    path = _yaml_path(item["loc"], data, missing=kind == "missing")
    value = item.get("input")
    of_key = "[key]" in item["loc"]
    shown = "" if of_key or kind in ("missing", "extra_forbidden") else shown_value(value, path)
    context = item.get("ctx", {})
    if kind == "spec":
        return SpecDiagnostic(
            context["summary"], detail=context["detail"], hint=context["hint"], path=path, value=shown
        )
    if kind == "missing":
        return _missing(path)
    if kind == "extra_forbidden":
        return _unknown_field(path)
    if kind == "literal_error":
        return _not_one_of(path, value, shown)
    summary, detail, hint = _wrong_value(kind, value, context, str(item["msg"]))
    return SpecDiagnostic(summary, detail=detail, hint=hint, path=path, value=shown)


def _yaml_path(loc: tuple[str | int, ...], data: Any, *, missing: bool) -> Path:
    """The part of pydantic's location that exists in the data: it adds `[key]` and steps of its own."""
    path: list[str | int] = []
    for part in loc[:-1] if missing else loc:
        if isinstance(data, str):
            break
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
        path.append(part)
    return (*path, loc[-1]) if missing else tuple(path)


def _missing(path: Path) -> SpecDiagnostic:
    name = str(path[-1])
    where = render_path(path[:-1]) or "the spec"
    hint = {"apiVersion": f"write `apiVersion: {API_VERSION}`", "kind": f"write `kind: {KIND}`"}.get(name, "")
    if len(path) > 1:
        hint = f"add `{name}:` to it"
    return SpecDiagnostic(f"missing field `{name}`", detail=f"{where} must have it", hint=hint, path=path)


def _unknown_field(path: Path) -> SpecDiagnostic:
    name = str(path[-1])
    known = fields_at(path[:-1]) or {}
    close = nearest(name, known)
    if close:
        hint = f"did you mean `{close}`?"
    elif homes := [home for home in _homes().get(name, ()) if home != path]:
        hint = f"`{name}` belongs at `{render_path(homes[0])}`"
    else:
        hint = f"known fields: {', '.join(known)}" if 0 < len(known) <= 8 else ""
    return SpecDiagnostic(f"unknown field `{name}`", hint=hint, path=path)


def _not_one_of(path: Path, value: Any, shown: str) -> SpecDiagnostic:
    allowed = _choices(path)
    listed = ", ".join(choice for choice in allowed if choice)
    if not isinstance(value, str):
        return SpecDiagnostic(f"must be one of {listed}, not {_kind_of(value)}", path=path, value=shown)
    close = nearest(value, allowed)
    summary = f"`{render_path(path[-1:])}` cannot be `{value}`"
    hint = f"did you mean `{close}`?" if close else ""
    return SpecDiagnostic(summary, detail=f"It is one of {listed}", hint=hint, path=path, value=shown)


def _wrong_value(kind: str, value: Any, context: Mapping[str, Any], fallback: str) -> tuple[str, str, str]:
    if kind in _EXPECTED:
        return _wrong_type(_EXPECTED[kind], value)
    bounds = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}
    if kind in bounds:
        words, key = bounds[kind]
        return f"must be {words} {context[key]}", "", ""
    if kind == "too_short":
        return "must not be empty", "", ""
    return fallback[:1].lower() + fallback[1:], "", ""


def _wrong_type(expected: str, value: Any) -> tuple[str, str, str]:
    given = "a fraction" if expected == "a whole number" and isinstance(value, float) else _kind_of(value)
    summary = f"must be {expected}, not {given}"
    text = value.text if isinstance(value, WrittenInt | WrittenFloat) else value
    hint = ""
    match expected:
        case "text" if isinstance(value, bool):
            hint = f'write it in quotes: `"{"true" if value else "false"}"`'
        case "text" if isinstance(value, int | float):
            hint = f'write it in quotes: `"{text}"`'
        case "a whole number" if isinstance(value, str) and value.lstrip("-").isdigit():
            hint = f"write it without quotes: `{value}`"
        case "true or false" if isinstance(value, str) and value.lower() in ("true", "false"):
            hint = f"write it without quotes: `{value.lower()}`"
        case "a list" if isinstance(value, str | int | float | bool):
            hint = f"write it as a list: `- {text}`"
        case "a list" if isinstance(value, Mapping):
            hint = "begin each item with `- `"
        case "a map":
            hint = "write `name: value` lines below it"
    return summary, "", hint


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case Mapping():
            return "a map"
    return "a list"


@cache
def _fields(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    return {info.alias or name: _model_in(info.annotation) for name, info in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The one model inside an annotation such as `tuple[File, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _choices(path: Path) -> list[str]:
    model: type[BaseModel] | None = ClusterConfiguration
    annotation: Any = None
    for part in path:
        if model is None or isinstance(part, int):
            continue
        by_alias = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
        if part in by_alias:
            annotation = by_alias[part]
            model = _model_in(annotation)
    return [choice for choice in _literals(annotation) if isinstance(choice, str)]


def _literals(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        if isinstance(part, type) or get_args(part):
            yield from _literals(part)
        else:
            yield part


@cache
def _homes() -> dict[str, list[Path]]:
    """Where each field name of the whole schema stands, the shallowest first."""
    homes: dict[str, list[Path]] = {}
    queue: list[tuple[Path, type[BaseModel]]] = [((), ClusterConfiguration)]
    for path, model in queue:
        for name, inner in _fields(model).items():
            homes.setdefault(name, []).append((*path, name))
            if inner and len(path) < 4:
                queue.append(((*path, name), inner))
    return homes
