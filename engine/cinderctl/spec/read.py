"""Files to one tree: find them, read them, check that each is a ClusterConfiguration, overlay them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import TextIO

from cinderctl.spec.diagnostics import SpecDiagnostic, nearest
from cinderctl.spec.tree import Tree, overlay
from cinderctl.spec.v1alpha1 import API_VERSION, KIND
from cinderctl.spec.yamltree import parse_documents

__all__ = ["STDIN_LABEL", "read_sources"]

STDIN_LABEL = "<stdin>"


def read_sources(
    files: Sequence[str | FilePath], *, cwd: FilePath, stdin: TextIO | None, default_names: Sequence[str]
) -> tuple[Tree | None, list[FilePath], list[SpecDiagnostic]]:
    """The overlaid tree (None when some file gives none), the files read, the problems so far."""
    problems: list[SpecDiagnostic] = []
    if not files:
        found = [name for name in default_names if (cwd / name).exists()]
        if not found:
            tried = " or ".join(f"`{name}`" for name in default_names)
            hint = "name the spec with `-f FILE`"
            return None, [], [SpecDiagnostic("no spec here", detail=f"There is no {tried} in {cwd}", hint=hint)]
        files = found[:1]
    trees: list[Tree] = []
    read: list[FilePath] = []
    for index, file in enumerate(files):
        tree = _read_one(file, cwd=cwd, stdin=stdin, first=index == 0, problems=problems)
        if tree is not None:
            trees.append(tree)
        if str(file) != "-":
            read.append(cwd / file)
    if len(trees) < len(files):
        return None, read, problems
    merged = overlay(trees)
    # Each file's own header has been checked: what follows need not report it again.
    merged.value |= {"apiVersion": API_VERSION, "kind": KIND}
    return merged, read, problems


def _read_one(
    file: str | FilePath, *, cwd: FilePath, stdin: TextIO | None, first: bool, problems: list[SpecDiagnostic]
) -> Tree | None:
    label = STDIN_LABEL if str(file) == "-" else str(file)
    directory = cwd if label == STDIN_LABEL else (cwd / file).parent
    text = _text(label, cwd / file, stdin, problems)
    if text is None:
        return None
    documents, found = parse_documents(text, label)
    problems.extend(found)
    filled = [document for document in documents if document.value is not None]
    if not filled:
        if not found:
            hint = f"begin with `apiVersion: {API_VERSION}` and `kind: {KIND}`"
            problems.append(SpecDiagnostic("the spec is empty", hint=hint, source=f"{label}:1"))
        return None
    if len(filled) > 1:
        problems.append(
            SpecDiagnostic(
                "several documents in one file",
                detail=f"{label} has {len(filled)}; a spec is one document",
                hint="put Kubernetes objects into a file named in `manifests`, and overlays into files of their own",
                source=f"{label}:{filled[1].lines[()]}",
            )
        )
    document = filled[0]
    if not isinstance(document.value, dict):
        problems.append(SpecDiagnostic("the spec is not a map", hint="write `name: value` lines", source=f"{label}:1"))
        return None
    tree = Tree.of_document(document, label, directory)
    tree.marks.setdefault((), tree.mark(()))
    return tree if _has_header(tree, problems, required=first) else None


def _text(label: str, path: FilePath, stdin: TextIO | None, problems: list[SpecDiagnostic]) -> str | None:
    try:
        if label == STDIN_LABEL:
            if stdin is None:
                problems.append(SpecDiagnostic("nothing to read from standard input"))
                return None
            return stdin.read()
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        detail = f"Byte {error.start} is not UTF-8"
        problems.append(SpecDiagnostic("the spec is not text", detail=detail, source=label))
    except IsADirectoryError:
        hint = f"write `-f {FilePath(label, 'cluster.yaml')}`" if (path / "cluster.yaml").exists() else ""
        problems.append(SpecDiagnostic("the spec is a directory", detail=str(path), hint=hint, source=label))
    except FileNotFoundError:
        close = nearest(path.name, [entry.name for entry in path.parent.iterdir()]) if path.parent.is_dir() else ""
        hint = f"did you mean `{FilePath(label).parent / close}`?" if close else ""
        problems.append(SpecDiagnostic("no such file", detail=str(path), hint=hint, source=label))
    except OSError as error:
        problems.append(SpecDiagnostic("the spec cannot be read", detail=f"{path}: {error.strerror}", source=label))
    return None


def _has_header(tree: Tree, problems: list[SpecDiagnostic], *, required: bool) -> bool:
    """Check apiVersion and kind (an overlay may leave them out). False when the file is something else altogether, so
    that nobody has to read what is wrong with a Deployment as a spec."""
    usable = True
    for field, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        value = tree.value.get(field)
        if value == expected or (value is None and not required):
            continue
        source = str(tree.mark((field,)))
        if value is None:
            summary, hint = f"missing field `{field}`", f"write `{field}: {expected}`"
            problems.append(SpecDiagnostic(summary, hint=hint, path=(field,), source=source))
            continue
        summary = f"`{field}` is not `{expected}`"
        hint = f"write `{field}: {expected}`"
        if field == "kind" and not nearest(str(value), [KIND]):
            hint = "Kubernetes objects go into a file of their own, named in `manifests`"
        shown = f'"{value}"' if isinstance(value, str) else ""
        problems.append(SpecDiagnostic(summary, hint=hint, path=(field,), source=source, value=shown))
        usable = usable and bool(nearest(str(value), [expected]))
    return usable
