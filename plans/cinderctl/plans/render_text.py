"""A plan for people: a block for each change, saying what and why, and a last line that can be counted on.

Signs and words carry everything; colour only helps the eye. The same plan gives the same text.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic, Severity
from cinderctl.plans.model import CONDITION_FIELDS, Action, Cause, Change, FieldChange, Mode, Plan, path_text
from cinderctl.plans.render_json import created_fields
from cinderctl.plans.words import COLORS, cause_words, elided, paint, past, summary_line, value_text

__all__ = ["field_lines", "ignore_lines", "problem_lines", "render_text", "wrapped"]

_CONTEXT = 12  # characters shown before the first difference of two long values
_LONGEST_NAME = 40  # columns; a longer field name does not push all others to the right


def render_text(plan: Plan, *, width: int = 80, color: bool = False) -> str:
    """The plan in at most `width` columns where words can be broken; ends with a newline."""
    width = max(40, width)
    parts: list[str] = []
    for change in plan.pending:
        parts.extend([*_block(change, width, color), ""])
    parts.extend(_section([_held_line(change) for change in plan.held], width))
    parts.extend(_section(list(_seen_lines(plan)), width))
    advice = ignore_lines((change.address, change.fields) for change in plan.pending)
    parts.extend([*(f"  # {line}" for line in advice), ""] if advice else [])
    unchanged = sum(change.action is Action.NO_OP and not change.held for change in plan.changes)
    if plan.pending and unchanged:
        parts.extend([f"  # ({unchanged} unchanged {_plural('resource', unchanged)} hidden)", ""])
    if not plan.pending:
        parts.extend([_nothing_to_do(plan), ""])
    parts.append(paint(summary_line(plan.summary), "bold", color))
    return "\n".join(parts) + "\n"


def field_lines(fields: Sequence[FieldChange], width: int, color: bool, *, created: bool = False) -> Iterator[str]:
    """One line for a field when it fits, else one for what was and one for what will be."""
    names = [path_text(item.path) for item in fields]
    column = max((len(name) for name in names if len(name) <= _LONGEST_NAME), default=0)
    if created:
        for name, item in zip(names, fields, strict=True):
            value = elided(value_text(item.after), width - 11 - max(column, len(name)))
            yield f"      {paint('+', 'green', color)} {name:<{column}} = {value}"
        return
    moves = [_move(item) for item in fields]
    notes = [
        ", ".join([cause_words(item), *(["forces replacement"] if item.forces_replacement else [])]) for item in fields
    ]
    room = width - 8
    aligned = all(column + 2 + len(move) + 4 + len(note) <= room for move, note in zip(moves, notes, strict=True))
    for name, item, move, note in zip(names, fields, moves, notes, strict=True):
        sign = paint(*_sign(item), color)
        said = f"{name + ':':<{column + 1 if aligned else 0}} {move}"
        if len(said) + 4 + len(note) <= room:
            yield f"      {sign} {said}  # {note}"
        elif len(said) <= room:
            yield f"      {sign} {said}"
            yield from wrapped(note, width, "          # ", "          # ")
        else:
            yield f"      {sign} {name}:"
            yield from _long_move(item.before, item.after, width, color)
            yield from wrapped(note, width, "          # ", "          # ")


def _long_move(before: Any, after: Any, width: int, color: bool) -> Iterator[str]:
    """What goes and what comes of a list; else both values, from a little before the first difference on."""
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        gone, come = [item for item in before if item not in after], [item for item in after if item not in before]
        if gone or come:
            for sign, tint, items in (("-", "red", gone), ("+", "green", come)):
                for item in items:
                    yield f"          {paint(sign, tint, color)} {elided(value_text(item), width - 12)}"
            same = len(after) - len(come)
            if same:
                yield f"            # ({same} unchanged item{'s' if same > 1 else ''} hidden)"
            return
        # They differ in their order alone, and are shown as they are.
    old, new = value_text(before), value_text(after)
    same = next((place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, same - _CONTEXT)
    for lead, text in (("   ", old), ("-> ", new)):
        shown = text if len(text) <= width - 13 or not start else f"…{text[start:]}"
        yield f"          {lead}{elided(shown, width - 13)}"


def problem_lines(problems: Iterable[Diagnostic]) -> Iterator[str]:
    """What is worth a line on stdout of a problem that is told in full elsewhere."""
    for problem in problems:
        about = f"{problem.address}: " if problem.address and str(problem.address) not in problem.summary else ""
        yield f"{about}{problem.summary}" + (f" ({problem.detail})" if problem.detail else "")


def ignore_lines(changed: Iterable[tuple[Address, Iterable[FieldChange]]]) -> list[str]:
    """What to add to the spec to leave alone what was changed outside; nothing when nothing was."""
    found = []
    for address, fields in changed:
        moved = (item.path for item in fields if item.cause is Cause.WORLD)
        paths = [path_text(path) for path in moved if path[-1] not in CONDITION_FIELDS]
        if paths:
            listed = ", ".join(json.dumps(path, ensure_ascii=False) if '"' in path else path for path in paths)
            found.append(f"    {address}: {{ignore: [{listed}]}}")
    return ["To leave what was changed outside as it is, add to the spec:", "  lifecycle:", *found] if found else []


def wrapped(text: str, width: int, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def _block(change: Change, width: int, color: bool) -> Iterator[str]:
    where = f" ({change.source})" if change.source else ""
    reason = f": {change.reason}" if change.reason else ""
    yield from wrapped(f"{change.address} will be {past(change.action)}{where}{reason}", width, "  # ", "  #   ")
    indent = " " * (4 - len(change.action.symbol))
    yield f"{indent[1:]}{paint(f'{change.action.symbol} {change.address}', COLORS[change.action], color)}"
    created = change.action is Action.CREATE
    fields = list(created_fields(change)) if created else change.fields
    yield from field_lines(fields, width, color, created=created)
    if change.action in (Action.UPDATE, Action.REPLACE, Action.ADOPT):
        said = {str(name) for name, value in change.inputs.items() if value not in (None, "", [], {})}
        hidden = len(said - {str(item.path[0]) for item in change.fields})
        if hidden:
            yield f"        # ({hidden} unchanged {_plural('input', hidden)} hidden)"


def _move(item: FieldChange) -> str:
    after = value_text(item.after)
    return after if _sign(item)[0] == "+" else f"{value_text(item.before)} -> {after}"


def _sign(item: FieldChange) -> tuple[str, str]:
    if item.before is None and item.after is not None:
        return "+", "green"
    if item.after is None:
        return "-", "red"
    return "~", "yellow"


def _held_line(change: Change) -> str:
    return f"{change.address} is left as it is: {change.reason}"


def _seen_lines(plan: Plan) -> Iterator[str]:
    for line in problem_lines(plan.unobserved):
        yield f"not seen: {line}"
    held = {change.address for change in plan.held}
    warnings = [item for item in plan.diagnostics if item.severity is Severity.WARNING and item.address not in held]
    for line in problem_lines(warnings):
        yield f"warning: {line}"


def _section(lines: Sequence[str], width: int) -> list[str]:
    """Comment lines with an empty one after them, none when there are none."""
    found = [part for line in lines for part in wrapped(line, width, "  # ", "  #   ")]
    return [*found, ""] if found else []


def _nothing_to_do(plan: Plan) -> str:
    if plan.mode is Mode.DESTROY:
        return "No changes. There is nothing of this cluster left to destroy."
    if plan.held or plan.unobserved or plan.errors:
        return "No changes can be made."
    return "No changes. The world is as the spec says."


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
