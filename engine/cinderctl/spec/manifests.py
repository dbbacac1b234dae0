"""The Kubernetes objects that a spec names: from files or inline, checked as far as that goes without a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path as FilePath
from typing import Any

from cinderctl.spec.diagnostics import SpecDiagnostic
from cinderctl.spec.paths import what_is_at
from cinderctl.spec.tree import Places
from cinderctl.spec.v1alpha1 import ClusterConfiguration
from cinderctl.spec.written import Path, as_kubernetes
from cinderctl.spec.yamltree import Document, parse_documents

__all__ = ["ManifestObject", "Manifests", "read_manifests"]

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class ManifestObject:
    """One object. `namespace` is "" when it names none. `source` is its own file and line; `path` is the entry of the
    spec that brought it."""

    value: Mapping[str, Any]
    source: str
    path: Path

    @property
    def api_version(self) -> str:
        return str(self.value["apiVersion"])

    @property
    def kind(self) -> str:
        return str(self.value["kind"])

    @property
    def name(self) -> str:
        return str(self.value["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.value["metadata"].get("namespace") or "")

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """API group, kind, namespace, name: what makes it the same object in any version."""
        group, slash, _ = self.api_version.partition("/")
        return (group if slash else "", self.kind, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Manifests:
    objects: tuple[ManifestObject, ...]
    files: tuple[FilePath, ...]
    problems: tuple[SpecDiagnostic, ...]


def read_manifests(
    config: ClusterConfiguration, written: ClusterConfiguration, places: Places, cwd: FilePath
) -> Manifests:
    """All objects in order. `config` has absolute paths, `written` those of the spec. Files below `cwd` are named
    relative to it in sources and problems."""
    objects: list[ManifestObject] = []
    files: list[FilePath] = []
    problems: list[SpecDiagnostic] = []
    for index, manifest in enumerate(config.manifests):
        at: Path = ("manifests", index)
        if manifest.inline is not None:
            document = Document(dict(manifest.inline))
            objects.extend(_objects(document, "", (*at, "inline"), problems))
        elif manifest.path is not None:
            found = _files_of(FilePath(manifest.path))
            if not found:
                problems.append(
                    _nothing_at(FilePath(manifest.path), (*at, "path"), written.manifests[index].path or "")
                )
            for file in found:
                files.append(file)
                objects.extend(_read(file, cwd, (*at, "path"), problems))
    problems.extend(_twice(objects, places))
    return Manifests(tuple(objects), tuple(files), tuple(problems))


def _files_of(path: FilePath) -> list[FilePath]:
    match what_is_at(path):
        case "directory":
            entries = (FilePath(directory, name) for directory, _, names in islice(os.walk(path), 1) for name in names)
            return sorted(entry for entry in entries if entry.suffix in _SUFFIXES and what_is_at(entry) == "file")
        case "nothing":
            return []
    return [path]


def _nothing_at(path: FilePath, at: Path, written: str) -> SpecDiagnostic:
    if what_is_at(path) == "directory":
        return SpecDiagnostic(
            "no manifests in this directory", detail=f"It has no {', '.join(_SUFFIXES)} file", path=at
        )
    hint = "paths are relative to the file that names them"
    if "://" in written:
        hint = "download it and keep it beside the spec: a plan has to know what it will apply"
    return SpecDiagnostic("no such file", detail=str(path), hint=hint, path=at)


def _read(file: FilePath, cwd: FilePath, at: Path, problems: list[SpecDiagnostic]) -> list[ManifestObject]:
    label = str(file.relative_to(cwd)) if file.is_relative_to(cwd) else str(file)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        problems.append(SpecDiagnostic("not a text file", detail="It is not UTF-8", path=at, source=label))
        return []
    except OSError as error:
        problems.append(SpecDiagnostic("cannot be read", detail=f"{file}: {error.strerror}", path=at))
        return []
    documents, found = parse_documents(text, label)
    problems.extend(found)
    objects: list[ManifestObject] = []
    for document in documents:
        document.value = as_kubernetes(document.value)
        objects.extend(_objects(document, label, at, problems))
    if not objects and not found and not any(document.value is not None for document in documents):
        problems.append(SpecDiagnostic("manifest is empty", path=at, source=f"{label}:1"))
    return objects


def _objects(document: Document, label: str, at: Path, problems: list[SpecDiagnostic]) -> Iterator[ManifestObject]:
    """The valid objects of a document, Lists taken apart; the problems of the others."""
    value = document.value
    if value is None:
        return
    if not isinstance(value, Mapping):
        source = _source(document, label, ())
        problems.append(SpecDiagnostic("not a Kubernetes object", detail="An object is a map", path=at, source=source))
        return
    items = value.get("items")
    if str(value.get("kind", "")).endswith("List") and isinstance(items, list):
        candidates: list[tuple[Any, Path]] = [(item, ("items", index)) for index, item in enumerate(items)]
    else:
        candidates = [(value, ())]
    for candidate, inner in candidates:
        problem = _problem(candidate)
        source = _source(document, label, inner)
        if problem is None:
            yield ManifestObject(candidate, source, at)
        else:
            summary, hint, field = problem
            source = _source(document, label, (*inner, field)) if field else source
            problems.append(SpecDiagnostic(summary, hint=hint, path=at if not label else (), source=source))


def _problem(value: Any) -> tuple[str, str, str] | None:
    """Summary, hint and field of what keeps a value from being an object."""
    if not isinstance(value, Mapping):
        return "not a Kubernetes object", "", ""
    for key in ("apiVersion", "kind"):
        if not isinstance(value.get(key), str) or not value[key]:
            return f"a Kubernetes object needs `{key}`", "", key
    if value["kind"] == "Kustomization":
        hint = "write its output to a file (`kubectl kustomize DIR > all.yaml`) and name that"
        return "a Kustomization is no object of the API", hint, "kind"
    metadata = value.get("metadata")
    if not isinstance(metadata, Mapping):
        return f"{value['kind']} without `metadata.name`", "", "metadata"
    name = metadata.get("name")
    if isinstance(name, str) and name:
        namespace = metadata.get("namespace")
        if namespace is not None and not isinstance(namespace, str):
            return "`metadata.namespace` must be text", "write it in quotes", "metadata"
        return None
    if name is not None and name != "":
        return "`metadata.name` must be text", f'write it in quotes: `"{name}"`', "metadata"
    hint = "write a fixed `name`" if "generateName" in metadata else ""
    return f"{value['kind']} without `metadata.name`", hint, "metadata"


def _source(document: Document, label: str, path: Path) -> str:
    if not label:
        return ""
    while path not in document.lines:
        path = path[:-1]
    return f"{label}:{document.lines[path]}"


def _twice(objects: list[ManifestObject], places: Places) -> Iterator[SpecDiagnostic]:
    first: dict[tuple[str, str, str, str], ManifestObject] = {}
    for item in objects:
        other = first.setdefault(item.identity, item)
        if other is not item:
            yield SpecDiagnostic(
                f"{item.kind} `{item.name}` is given twice",
                detail=f"The other one is at {other.source or places.source(other.path)}",
                path=() if item.source else item.path,
                source=item.source,
            )
