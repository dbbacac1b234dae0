"""The spec before it is a model: plain values with the file and line of each, several files overlaid into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from cinderctl.spec.diagnostics import render_path
from cinderctl.spec.written import Path
from cinderctl.spec.yamltree import Document

__all__ = ["Mark", "Places", "Remainder", "Tree", "overlay", "without"]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a value stands. `directory` is what paths in it are relative to."""

    label: str
    line: int
    directory: FilePath

    def __str__(self) -> str:
        return f"{self.label}:{self.line}" if self.line else self.label


@dataclass(slots=True)
class Tree:
    """A map of plain values, and a mark for each path in it."""

    value: dict[str, Any]
    marks: dict[Path, Mark] = field(default_factory=dict)

    @classmethod
    def of_document(cls, document: Document, label: str, directory: FilePath) -> Tree:
        """The tree of one document, which must be a map."""
        marks = {path: Mark(label, line, directory) for path, line in document.lines.items()}
        return cls(document.value, marks)

    def mark(self, path: Path) -> Mark:
        """The mark of a path, or of the nearest one above it that stands in a file."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks[path]

    def put(self, path: Path, value: Any, mark: Mark) -> None:
        """Set a value below maps, as an overlay of one field would."""
        for key in reversed(path[1:]):
            value = {key: value}
        _merge(self, Tree({str(path[0]): value}, {path: mark}))


def overlay(trees: Sequence[Tree]) -> Tree:
    """Later over earlier: maps are merged key by key, lists and scalars replaced, an empty value (null) removes what an
    earlier file said (as JSON merge patches do, RFC 7386)."""
    result = Tree(dict(trees[0].value), dict(trees[0].marks))
    for tree in trees[1:]:
        _merge(result, tree)
    return result


def _merge(base: Tree, over: Tree) -> None:
    base.value = _merged(base, base.value, over, over.value, ())


def _merged(base: Tree, old: Mapping[str, Any], over: Tree, new: Mapping[str, Any], path: Path) -> dict[str, Any]:
    result = dict(old)
    for key, value in new.items():
        here = (*path, key)
        before = result.get(key)
        if value is None:
            result.pop(key, None)
            _drop_marks(base, here)
        elif isinstance(value, Mapping) and isinstance(before, Mapping):
            result[key] = _merged(base, before, over, value, here)
        else:
            result[key] = value
            _drop_marks(base, here)
            base.marks.update({at: mark for at, mark in over.marks.items() if at[: len(here)] == here})
    return result


def _drop_marks(tree: Tree, path: Path) -> None:
    for at in [at for at in tree.marks if at[: len(path)] == path]:
        del tree.marks[at]


@dataclass(frozen=True, slots=True)
class Places:
    """How checks of a model name the places of a tree; `remainder` finds back what has moved."""

    tree: Tree
    remainder: Remainder

    def stands(self, path: Path) -> bool:
        """Whether the files say it, so that it is not a default."""
        return self.remainder.original(path) in self.tree.marks

    def sound(self, path: Path) -> bool:
        """Whether nothing below the path had to be left out."""
        original = self.remainder.original(path)
        return not any(hole[: len(original)] == original for hole in self.remainder.holes)

    def name(self, path: Path) -> str:
        """`artifacts[0].name` (cluster.yaml:7), for the text of a message."""
        original = self.remainder.original(path)
        place = str(self.tree.mark(original)) if original in self.tree.marks else "by default"
        return f"`{render_path(original)}` ({place})"

    def source(self, path: Path) -> str:
        """cluster.yaml:7, of the path or the nearest above it."""
        return str(self.tree.mark(self.remainder.original(path)))


@dataclass(frozen=True, slots=True)
class Remainder:
    """A value with some paths taken out. List items move up; `original` finds where a path stood before."""

    value: Any
    kept: Mapping[Path, Sequence[int]]
    holes: frozenset[Path] = frozenset()

    def original(self, path: Path) -> Path:
        result: Path = ()
        for part in path:
            kept = self.kept.get(result)
            moved = isinstance(part, int) and kept is not None and part < len(kept)
            result = (*result, kept[part] if moved and kept is not None and isinstance(part, int) else part)
        return result


def without(value: Any, holes: frozenset[Path]) -> Remainder:
    """A copy of a value without what stands at the paths of `holes`."""
    kept: dict[Path, list[int]] = {}

    def copy(item: Any, path: Path) -> Any:
        if isinstance(item, Mapping):
            return {key: copy(inner, (*path, key)) for key, inner in item.items() if (*path, key) not in holes}
        if isinstance(item, list):
            kept[path] = [index for index in range(len(item)) if (*path, index) not in holes]
            return [copy(item[index], (*path, index)) for index in kept[path]]
        return item

    return Remainder(copy(value, ()), kept, holes)
