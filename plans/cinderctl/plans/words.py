"""How values, fields and counts read in every text rendering."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cinderctl.core.values import SENSITIVE, Ref
from cinderctl.plans.model import Action, Cause, FieldChange, Summary

__all__ = [
    "COLORS",
    "KNOWN_AFTER_APPLY",
    "cause_words",
    "elided",
    "paint",
    "past",
    "presentable",
    "summary_line",
    "value_text",
]

KNOWN_AFTER_APPLY = "(known after apply)"

_ESCAPES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}

COLORS: Mapping[Action, str] = {
    Action.CREATE: "green",
    Action.UPDATE: "yellow",
    Action.REPLACE: "red",
    Action.DELETE: "red",
    Action.ADOPT: "cyan",
    Action.FORGET: "red",
    Action.NO_OP: "dim",
}


def paint(text: str, color: str, on: bool) -> str:
    """ANSI colour around a text. What it says must be readable without."""
    return f"\033[{_ESCAPES[color]}m{text}\033[0m" if on and color else text


def presentable(value: Any) -> Any:
    """The value as anybody may see it: secrets and values not known yet as the words for them, wherever they stand."""
    if isinstance(value, Ref):
        return KNOWN_AFTER_APPLY
    if isinstance(value, str):
        return SENSITIVE if value.startswith(SENSITIVE) else value
    if isinstance(value, Mapping):
        return {str(key): presentable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [presentable(item) for item in value]
    return value


def value_text(value: Any) -> str:
    """A value as JSON, but for the two kinds of words in parentheses and for what is not there."""
    shown = presentable(value)
    if shown is None:
        return "(nothing)"
    if shown in (SENSITIVE, KNOWN_AFTER_APPLY):
        return str(shown)
    return json.dumps(shown, ensure_ascii=False, sort_keys=True)


def elided(text: str, width: int) -> str:
    """At most `width` columns, saying how much is left out: nothing is cut silently."""
    if len(text) <= width:
        return text
    note = f"… ({len(text)} characters)"
    return text[: max(8, width - len(note))] + note


def cause_words(change: FieldChange) -> str:
    """Who moved: the three-way words of a field."""
    by = f" by {change.changed_by}" if change.changed_by else ""
    match change.cause:
        case Cause.SPEC:
            return "spec changed"
        case Cause.WORLD:
            return f"changed outside{by}"
        case Cause.BOTH:
            return f"spec changed, and changed outside{by}"
        case Cause.DEPENDENCY:
            return "follows from another resource"


def past(action: Action) -> str:
    """What happens to a resource, as `will be ...` continues."""
    return {
        Action.CREATE: "created",
        Action.UPDATE: "updated in place",
        Action.REPLACE: "replaced",
        Action.DELETE: "deleted",
        Action.ADOPT: "adopted",
        Action.FORGET: "forgotten",
        Action.NO_OP: "left as it is",
    }[action]


def summary_line(summary: Summary) -> str:
    """`Plan: 3 to create, 1 to update, 0 to replace, 0 to delete.`, always the last line of a plan."""
    counts = [
        f"{summary.create} to create",
        f"{summary.update} to update",
        f"{summary.replace} to replace",
        f"{summary.delete} to delete",
    ]
    if summary.adopt:
        counts.append(f"{summary.adopt} to adopt")
    if summary.forget:
        counts.append(f"{summary.forget} to forget")
    return f"Plan: {', '.join(counts)}."
