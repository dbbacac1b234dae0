"""YAML to plain values that remember where they stand.

YAML 1.2 core rules, read with ruamel's pure parser, which only this module imports. A scalar keeps how it was written
where that matters later: `0644` is an `int` whose text is still "0644", an unquoted `yes` is text that knows it would
have been a boolean in YAML 1.1. Mapping keys are always text, as in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cinderctl.spec.diagnostics import SpecDiagnostic
from cinderctl.spec.written import WORDS, Path, Word, WrittenFloat, WrittenInt

__all__ = ["Document", "parse_documents"]

# Aliases may multiply a small file into any size: stop long before memory does.
_MOST_NODES = 200_000

_TAG = "tag:yaml.org,2002:"


@dataclass(slots=True)
class Document:
    """One YAML document: plain values, and for each path the line (from 1) of its key or list item."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)


def parse_documents(text: str, label: str) -> tuple[list[Document], list[SpecDiagnostic]]:
    """Read every document of a text; `label` is how problems name the file. Problems of syntax end the reading, others
    (duplicate keys, unknown tags) leave the rest usable."""
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False
    documents: list[Document] = []
    problems: list[SpecDiagnostic] = []
    try:
        for node in yaml.compose_all(text):
            reader = _Reader(label, problems)
            documents.append(reader.read(node))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problems.append(_syntax(str(error.problem or error.context), f"{label}:{line}"))
    except YAMLError as error:
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1
        problems.append(_syntax(str(getattr(error, "reason", error)), f"{label}:{line}"))
    except RecursionError:
        problems.append(_syntax("nested too deeply", label))
    return documents, problems


def _syntax(problem: str, source: str) -> SpecDiagnostic:
    hint = ""
    if "'\\t'" in problem:
        hint = "indent with spaces: YAML does not allow tabs"
    elif "mapping values are not allowed" in problem:
        hint = "put text that contains `: ` in quotes, and check the indentation of the line above"
    elif "alias" in problem or "anchor" in problem or "cannot start any token" in problem:
        hint = "text that begins with one of & * ! % @ ` has to be in quotes"
    return SpecDiagnostic("not valid YAML", detail=problem, hint=hint, source=source)


class _TooLargeError(Exception):
    pass


class _Reader:
    """Turns the nodes of one document into values."""

    def __init__(self, label: str, problems: list[SpecDiagnostic]) -> None:
        self._label = label
        self._problems = problems
        self._lines: dict[Path, int] = {}
        self._count = 0
        self._open: set[int] = set()

    def read(self, node: Node) -> Document:
        self._lines[()] = _line(node)
        try:
            value = self._value(node, ())
        except _TooLargeError:
            self._problem("too many values", node, (), detail=f"Its aliases expand to more than {_MOST_NODES:,} values")
            value = None
        return Document(value, self._lines)

    def _value(self, node: Node, path: Path) -> Any:
        self._count += 1
        if self._count > _MOST_NODES:
            raise _TooLargeError
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            self._problem("an alias contains itself", node, path)
            return None
        self._open.add(id(node))
        try:
            expected = "map" if isinstance(node, MappingNode) else "seq"
            if str(node.tag) != f"{_TAG}{expected}":
                self._unknown_tag(node, path)
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _item(self, node: Node, path: Path) -> Any:
        self._lines[path] = _line(node)
        return self._value(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, int] = {}
        merged: list[MappingNode] = []
        for key_node, value_node in node.value:
            if str(key_node.tag) == f"{_TAG}merge":
                merged.extend(self._merge_sources(value_node, path))
                continue
            if not isinstance(key_node, ScalarNode):
                self._problem("a key must be text", key_node, path)
                continue
            key = self._text(key_node, path)
            here = (*path, key)
            if key in first:
                detail = f"It stands on line {first[key]} already; only one of them can hold"
                self._problem(f"duplicate key `{key}`", key_node, here, detail=detail)
                continue
            first[key] = self._lines[here] = _line(key_node)
            result[key] = self._value(value_node, here)
        for source in merged:
            self._merge(source, path, result)
        return result

    def _merge_sources(self, node: Node, path: Path) -> Iterator[MappingNode]:
        nodes = node.value if isinstance(node, SequenceNode) else [node]
        for source in nodes:
            if isinstance(source, MappingNode):
                yield source
            else:
                self._problem("`<<` can only merge a map", source, path)

    def _merge(self, source: MappingNode, path: Path, result: dict[str, Any]) -> None:
        """Add what `<<` brings; keys written in the map itself win. Lines are those of the anchor."""
        if id(source) in self._open:
            self._problem("an alias contains itself", source, path)
            return
        lines = self._lines
        self._lines = {}
        self._open.add(id(source))
        values = self._mapping(source, path)
        self._open.discard(id(source))
        brought, self._lines = self._lines, lines
        for key in values.keys() - result.keys():
            result[key] = values[key]
            depth = len(path)
            lines.update({at: line for at, line in brought.items() if at[: depth + 1] == (*path, key)})

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        text = self._text(node, path)
        tag = str(node.tag).removeprefix(_TAG)
        try:
            match tag:
                case "str" | "timestamp":
                    return Word(text) if tag == "str" and node.style is None and text in WORDS else text
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    integer = WrittenInt(_integer(text))
                    integer.text = text
                    return integer
                case "float":
                    return self._float(node, text, path)
                case _:
                    self._unknown_tag(node, path)
        except ValueError:
            self._problem("not a number", node, path, detail=f"`{text[:40]}` cannot be read as one")
        return text

    def _text(self, node: ScalarNode, path: Path) -> str:
        """The text of a scalar; JSON's escapes of one character in two halves are put together."""
        text = str(node.value)
        if text.isascii():
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._problem("text with half a character", node, path, detail="An escape such as \\ud800 stands alone")
            return ""

    def _float(self, node: Node, text: str, path: Path) -> Any:
        if text.lstrip("+-").lower() in (".inf", ".nan"):
            self._problem("not a finite number", node, path, detail=f"`{text}` has no meaning in a spec")
            return None
        number = WrittenFloat(text.replace("_", ""))
        if not math.isfinite(number):
            self._problem("number too large", node, path)
            return None
        number.text = text
        return number

    def _unknown_tag(self, node: Node, path: Path) -> None:
        tag = str(node.tag).replace(_TAG, "!!")
        self._problem(f"unknown tag `{tag}`", node, path, hint="remove the tag; a spec holds plain YAML values")

    def _problem(self, summary: str, node: Node, path: Path, *, detail: str = "", hint: str = "") -> None:
        source = f"{self._label}:{_line(node)}"
        self._problems.append(SpecDiagnostic(summary, detail=detail, hint=hint, path=path, source=source))


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    if digits.lstrip("+-")[:2].lower() in ("0o", "0x", "0b"):
        return int(digits, 0)
    return int(digits)
