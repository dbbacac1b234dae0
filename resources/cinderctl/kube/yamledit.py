"""Change a YAML text so that it means something else, touching only the lines that must change. Pure.

Made for files that belong to the user: comments, quotes, key order, blank lines and indentation elsewhere stay as
they are, byte for byte. The result is read back and compared, so an edit that would not mean what was asked is
never returned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

__all__ = ["UnreadableYamlError", "edited", "parse"]


class UnreadableYamlError(ValueError):
    """Not one YAML document, or one that cannot be edited. The text of the error says why and where."""


def parse(text: str) -> Any:
    """The plain value of a one-document YAML text (None when empty). Raises UnreadableYamlError."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as problem:
        raise UnreadableYamlError(_where(problem)) from problem


def edited(text: str, value: Mapping[str, Any]) -> str:
    """`text` changed to load as `value`. Lists of mappings are matched by their `name`. Raises UnreadableYamlError."""
    old = parse(text)
    if old == value:
        return text
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    result = _rendered(value, 0, "\n", before=text) if old is None else _spliced(text, old, value)
    if parse(result) != value:
        raise UnreadableYamlError("it uses YAML (anchors, tags or unusual layout) that cannot be changed safely")
    return result


@dataclass(frozen=True, slots=True)
class _Splice:
    """Replace the characters from `start` to `end`."""

    start: int
    end: int
    text: str


def _spliced(text: str, old: Any, value: Any) -> str:
    body = text.removeprefix("\ufeff")
    mark = text[: len(text) - len(body)]
    newline = "\r\n" if "\r\n" in body else "\n"
    if not body.endswith("\n"):
        body += newline
    lines = [0, *(match.end() for match in re.finditer(r"\r\n|\n|\r", body))]
    root: Node = YAML(typ="safe", pure=True).compose(body)
    result, done = [mark], 0
    for splice in sorted(_Editor(body, lines, newline).changes(root, old, value), key=lambda s: (s.start, s.end)):
        result += body[done : splice.start], splice.text
        done = splice.end
    return "".join((*result, body[done:]))


class _Editor:
    def __init__(self, text: str, lines: Sequence[int], newline: str) -> None:
        self._text = text
        self._lines = lines
        self._newline = newline

    def changes(self, node: Node, old: Any, new: Any) -> Iterator[_Splice]:
        """What to splice so that `node`, now `old`, becomes `new`."""
        if old == new:
            return
        if isinstance(node, MappingNode) and not node.flow_style and isinstance(new, Mapping) and new:
            yield from self._mapping(node, old, new)
        elif (
            isinstance(node, SequenceNode)
            and not node.flow_style
            and _named(old)
            and isinstance(new, list)
            and _named(new)
        ):
            yield from self._sequence(node, old, new)
        elif isinstance(node, ScalarNode) and node.style in {"|", ">"}:
            raise UnreadableYamlError(
                f"line {node.start_mark.line + 1} holds a block text that cannot be changed safely"
            )
        elif not isinstance(node, ScalarNode) and not _is_flow(node):
            raise UnreadableYamlError(f"line {node.start_mark.line + 1} cannot be changed safely")
        else:
            yield _Splice(node.start_mark.index, node.end_mark.index, _inline(new))

    def _mapping(self, node: MappingNode, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[_Splice]:
        column = node.start_mark.column
        for key_node, value_node in node.value:
            key = key_node.value
            if key not in new:
                yield self._without_lines(key_node, value_node)
            elif old[key] != new[key]:
                yield from self._value(column, key_node, value_node, old[key], new[key])
        added = {key: value for key, value in new.items() if key not in old}
        if added:
            at = self._after(node)
            yield _Splice(at, at, _rendered(added, column, self._newline))

    def _value(self, column: int, key_node: Node, value_node: Node, old: Any, new: Any) -> Iterator[_Splice]:
        """Change the value of one key, where its whole layout may have to change."""
        block = not isinstance(value_node, ScalarNode) and not _is_flow(value_node)
        colon = self._text.index(":", key_node.end_mark.index) + 1
        if block and not new:  # the last entry goes: comments between the entries stay
            yield _Splice(colon, colon, f" {_inline(new)}")
            for child in _children(value_node):
                yield self._without_lines(child, child)
        elif not old and new and isinstance(new, (Mapping, list)):
            if value_node.end_mark.index > value_node.start_mark.index:
                yield _Splice(colon, value_node.end_mark.index, "")
            at = self._line_end(key_node.start_mark.line)
            yield _Splice(at, at, _rendered(new, column, self._newline))
        elif value_node.end_mark.index == value_node.start_mark.index:  # nothing stands after the colon
            yield _Splice(colon, colon, f" {_inline(new)}")
        else:
            yield from self.changes(value_node, old, new)

    def _sequence(self, node: SequenceNode, old: list[Any], new: list[Any]) -> Iterator[_Splice]:
        wanted = {item["name"]: item for item in new}
        for item_node, item in zip(node.value, old, strict=True):
            if item["name"] in wanted:
                yield from self.changes(item_node, item, wanted[item["name"]])
            else:
                yield self._without_lines(item_node, item_node)
        known = {item["name"] for item in old}
        added = [item for item in new if item["name"] not in known]
        if added:
            at = self._after(node)
            yield _Splice(at, at, _rendered(added, node.start_mark.column, self._newline))

    def _without_lines(self, first: Node, last: Node) -> _Splice:
        start = self._lines[first.start_mark.line]
        if self._text[start : first.start_mark.index].strip(" -"):
            raise UnreadableYamlError(f"line {first.start_mark.line + 1} cannot be removed safely")
        return _Splice(start, self._after(last), "")

    def _after(self, node: Node) -> int:
        """Where the line begins that follows the last line of what the node says (comments after it are not its)."""
        return self._line_end(_last_line(node))

    def _line_end(self, line: int) -> int:
        return self._lines[line + 1] if line + 1 < len(self._lines) else len(self._text)


def _children(node: Node) -> list[Node]:
    """Nodes whose first lines begin the entries of a collection and whose last lines end them."""
    if isinstance(node, SequenceNode):
        return list(node.value)
    raise UnreadableYamlError(f"line {node.start_mark.line + 1} cannot be emptied safely")


def _last_line(node: Node) -> int:
    if isinstance(node, ScalarNode):
        ends_before = node.style in {"|", ">"} and node.end_mark.column == 0
        return int(node.end_mark.line) - (1 if ends_before else 0)
    if _is_flow(node) or not node.value:
        return int(node.end_mark.line)
    last = node.value[-1]
    if isinstance(node, MappingNode):
        key, value = last
        empty = isinstance(value, ScalarNode) and value.start_mark.index == value.end_mark.index
        return int(key.end_mark.line) if empty else _last_line(value)
    return _last_line(last)


def _is_flow(node: Node) -> bool:
    return isinstance(node, (MappingNode, SequenceNode)) and bool(node.flow_style)


def _named(value: Any) -> bool:
    """Whether this is a list of mappings with a `name` of their own each."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) and "name" in item for item in value):
        return False
    return len({item["name"] for item in value}) == len(value)


def _inline(value: Any) -> str:
    """One line of YAML: plain where every YAML version reads the same text from it, else JSON, which YAML includes."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False)


_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./@+=-]*(:[A-Za-z0-9_./@+=-]+)*")
_NOT_TEXT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})  # YAML 1.1, which kubectl reads


def _rendered(value: Any, column: int, newline: str, before: str = "") -> str:
    """Block lines as kubectl writes them (list dashes at the column of the key), each at `column`, after `before`."""
    gap = newline if before and not before.endswith("\n") else ""
    return before + gap + "".join(line + newline for line in _block(value, " " * column))


def _block(value: Any, pad: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if item and isinstance(item, (Mapping, list)):
                yield f"{pad}{_inline(key)}:"
                yield from _block(item, pad + "  " if isinstance(item, Mapping) else pad)
            else:
                yield f"{pad}{_inline(key)}: {_inline(item)}"
        return
    for item in value:
        if item and isinstance(item, Mapping):
            first, *others = _block(item, pad + "  ")
            yield f"{pad}- {first.lstrip(' ')}"
            yield from others
        else:
            yield f"{pad}- {_inline(item)}"


def _where(problem: Exception) -> str:
    """The parser's complaint in one line, without the text around it, which may hold secrets."""
    mark = getattr(problem, "problem_mark", None)
    what = str(getattr(problem, "problem", None) or getattr(problem, "context", None) or type(problem).__name__)
    return f"line {mark.line + 1}: {what}" if mark is not None else what
