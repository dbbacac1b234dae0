"""Read a spec: files to one validated configuration, or every problem at once with its file and line.

Several files overlay in order: maps are merged key by key, lists and scalars replaced, an empty value takes back what
an earlier file said. Paths are relative to the file that names them (standard input: to the working directory).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path as FilePath
from typing import Any, TextIO

from cinderctl.core.diagnostics import Severity, SpecError
from cinderctl.core.digest import digest_of
from cinderctl.spec.checks import RESOURCE_KINDS, check_files, check_values
from cinderctl.spec.diagnostics import SpecDiagnostic
from cinderctl.spec.manifests import ManifestObject, read_manifests
from cinderctl.spec.paths import absolute
from cinderctl.spec.providers import check_provider
from cinderctl.spec.read import read_sources
from cinderctl.spec.tree import Mark, Places, Tree
from cinderctl.spec.v1alpha1 import ClusterConfiguration
from cinderctl.spec.validate import Validated, validate
from cinderctl.spec.written import Path

__all__ = ["DEFAULT_NAMES", "Loaded", "load"]

DEFAULT_NAMES = ("cluster.yaml", "cinder.yaml")

# What stands in the file for a resource that the spec only implies.
_IMPLIED_BY: Mapping[str, tuple[Path, ...]] = {
    "wasmNodes": (("featureGates", "Krustlet"), ("featureGates", "AllAlpha")),
    "registry": (("featureGates", "LocalRegistry"), ("featureGates", "AllAlpha")),
    "localRegistryName": (("featureGates", "LocalRegistry"), ("featureGates", "AllAlpha")),
    "localRegistryPort": (("featureGates", "LocalRegistry"), ("featureGates", "AllAlpha")),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A spec that can be used.

    `config` has every path absolute. `objects` are the Kubernetes objects of `manifests`, in order. `sources` has the
    place (`cluster.yaml:7`) of everything written, by path of YAML names and indexes. `files` are all files read.
    `digest` is that of what the spec says, manifests included: where its files lie, comments and the order of keys make
    no difference.
    """

    config: ClusterConfiguration
    objects: tuple[ManifestObject, ...]
    sources: Mapping[Path, str]
    files: tuple[FilePath, ...]
    digest: str
    warnings: tuple[SpecDiagnostic, ...]

    def source(self, path: Sequence[str | int]) -> str:
        """Where the spec says something: the place of the path, of what implies it, or of the nearest field above."""
        wanted = tuple(path)
        if wanted and wanted[:1] not in self.sources:
            for implied in _IMPLIED_BY.get(str(wanted[0]), ()):
                if implied in self.sources:
                    return self.sources[implied]
        while wanted and wanted not in self.sources:
            wanted = wanted[:-1]
        return self.sources[wanted]

    def file_data(self, index: int) -> bytes:
        """The bytes of `files[index]`, decoded. Raises: SpecError when a hostpath file cannot be read."""
        file = self.config.files[index]
        try:
            return file.data()
        except OSError as error:
            path: Path = ("files", index, "content")
            problem = SpecDiagnostic("cannot be read", detail=f"{file.content}: {error.strerror}", path=path)
            raise SpecError(problem.located(source=self.source(path))) from error


def load(
    files: Sequence[str | FilePath],
    *,
    cwd: FilePath,
    stdin: TextIO | None = None,
    name: str | None = None,
    home: FilePath | None = None,
    kinds: Collection[str] = RESOURCE_KINDS,
) -> Loaded:
    """Read and check a spec. No files: `cluster.yaml`, else `cinder.yaml` in `cwd`; `-` is `stdin`. `name` overrides
    `metadata.name`. `home` is what `~` stands for (default: the account's). `kinds` are the resource kinds that
    `lifecycle` may name.

    Raises: SpecError with one diagnostic for each problem, in the order of the files' lines.
    """
    tree, read, problems = read_sources(files, cwd=cwd, stdin=stdin, default_names=DEFAULT_NAMES)
    if tree is None:
        raise SpecError(problems)
    if name is not None:
        tree.put(("metadata", "name"), name, Mark("--name", 0, cwd))
    written = validate(tree.value)
    problems += [_located(problem, tree) for problem in written.problems]
    if written.config is None:
        raise SpecError(_in_order(problems))
    resolved = validate(_resolved(tree, written, home))
    config = resolved.config or written.config
    places = Places(tree, written.remainder)
    manifests = read_manifests(config, written.config, places, cwd)
    found = [*check_values(config, places, kinds), *check_provider(config), *check_files(config), *manifests.problems]
    problems += [_located(replace(problem, path=written.original(problem.path)), tree) for problem in found]
    # Warnings wait until there are no errors: some only follow from what had to be left out.
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if errors:
        raise SpecError(_in_order(errors))
    objects = tuple(
        item if item.source else replace(item, source=str(tree.mark(item.path))) for item in manifests.objects
    )
    said = {
        "config": written.config.model_dump(mode="json", by_alias=True),
        "objects": [item.value for item in objects],
    }
    return Loaded(
        config=config,
        objects=objects,
        sources={path: str(mark) for path, mark in tree.marks.items()},
        files=(*read, *manifests.files),
        digest=digest_of(said),
        warnings=tuple(_in_order(problems)),
    )


def _located(problem: SpecDiagnostic, tree: Tree) -> SpecDiagnostic:
    return problem if problem.source else replace(problem, source=str(tree.mark(problem.path)))


def _in_order(problems: Iterable[SpecDiagnostic]) -> list[SpecDiagnostic]:
    """By file and line."""

    def place(problem: SpecDiagnostic) -> tuple[str, int]:
        label, _, line = problem.source.rpartition(":")
        return (label, int(line)) if line.isdigit() else (problem.source, 0)

    return sorted(problems, key=place)


def _resolved(tree: Tree, written: Validated, home: FilePath | None) -> Any:
    """The values with every path of this machine made absolute. Those of fields at fault stay as they are."""
    value = written.value
    config = written.config
    assert config is not None  # noqa: S101 - the caller looked
    places: list[Path] = [("kubeconfig", "path"), ("binaries", "directory")]
    filled: list[Path] = []
    places += [("files", i, "content") for i, file in enumerate(config.files) if file.encoding == "hostpath"]
    places += [("extraMounts", i, "hostPath") for i in range(len(config.extra_mounts))]
    places += [("manifests", i, "path") for i, item in enumerate(config.manifests) if item.path is not None]
    for index, artifact in enumerate(config.artifacts):
        places.append(("artifacts", index, "path"))
        if artifact.build is not None:
            filled.append(("artifacts", index, "build", "directory"))
    for path in (*places, *filled):
        directory = tree.mark(written.original(path)).directory
        value = _with_absolute(value, path, partial(absolute, directory=directory, home=home), path in filled)
    return value


def _with_absolute(value: Any, path: Path, resolve: Callable[[str], str], fill: bool) -> Any:
    """A copy of `value` with an absolute path for the text at `path`; where there is none, only with `fill`."""
    head, rest = path[0], path[1:]
    if isinstance(value, list) and isinstance(head, int):
        return [*value[:head], _with_absolute(value[head], rest, resolve, fill), *value[head + 1 :]]
    if not isinstance(value, Mapping):
        return value
    if rest:
        return {**value, head: _with_absolute(value[head], rest, resolve, fill)} if head in value else value
    return {**value, head: resolve(str(value.get(head) or ""))} if fill or value.get(head) else value
