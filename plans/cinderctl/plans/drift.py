"""Drift: what moved in the world while the spec did not. Derived from the plan that would mend it, so that drift,
plan and exit codes can never disagree; what only the spec changed is kept apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cinderctl.core.diagnostics import Diagnostic
from cinderctl.plans.model import Action, Cause, Change, FieldChange, Plan
from cinderctl.plans.render_json import FORMAT_VERSION, diagnostic_to_json, field_to_json
from cinderctl.plans.render_text import field_lines, ignore_lines, problem_lines, wrapped
from cinderctl.plans.words import paint

__all__ = ["Drift", "Drifted", "Move", "drift_of", "drift_to_json", "render_json", "render_text"]


class Move(StrEnum):
    """How a resource drifted."""

    CHANGED = "changed"
    GONE = "gone"
    NOT_READY = "not ready"
    UNRECORDED = "unrecorded"


_SIGNS = {Move.CHANGED: "~", Move.GONE: "-", Move.NOT_READY: "!", Move.UNRECORDED: "="}
_COLORS = {Move.CHANGED: "yellow", Move.GONE: "red", Move.NOT_READY: "red", Move.UNRECORDED: "cyan"}


@dataclass(frozen=True, slots=True)
class Drifted:
    """One resource that moved. `fields` hold the moved ones only: `before` is the world's value, `after` the spec's."""

    change: Change
    move: Move
    fields: tuple[FieldChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Drift:
    """`pending` are changes that the spec asks for: no drift, but `plan` shows them. `unobserved`: drift may hide
    there.
    """

    cluster: str
    drifted: tuple[Drifted, ...] = ()
    pending: tuple[Change, ...] = ()
    unobserved: tuple[Diagnostic, ...] = ()


def drift_of(plan: Plan) -> Drift:
    """`plan` is of mode apply."""
    drifted: list[Drifted] = []
    pending: list[Change] = []
    for change in plan.changes:
        found = _moved(change)
        if found is not None:
            drifted.append(found)
        if change.action is not Action.NO_OP and (found is None or _asked_for(change)):
            pending.append(change)
    return Drift(plan.cluster, tuple(drifted), tuple(pending), plan.unobserved)


def drift_to_json(drift: Drift) -> dict[str, Any]:
    counts = {move.name.lower(): sum(item.move is move for item in drift.drifted) for move in Move}
    return {
        "format_version": FORMAT_VERSION,
        "cluster": drift.cluster,
        "changes": [
            {
                "address": str(item.change.address),
                "action": item.change.action.value,
                "drift": item.move.value,
                "reason": item.change.reason,
                "fields": [field_to_json(each) for each in item.fields],
                "source": item.change.source,
                "fingerprint": item.change.fingerprint,
            }
            for item in drift.drifted
        ],
        "summary": {"drifted": len(drift.drifted), **counts, "pending": len(drift.pending)},
        "pending": [
            {"address": str(change.address), "action": change.action.value, "reason": change.reason}
            for change in drift.pending
        ],
        "unobserved": [diagnostic_to_json(problem) for problem in drift.unobserved],
    }


def render_json(drift: Drift) -> str:
    return json.dumps(drift_to_json(drift), indent=2, ensure_ascii=False) + "\n"


def render_text(drift: Drift, *, width: int = 80, color: bool = False) -> str:
    """A block for each resource that moved; the last line counts them."""
    width = max(40, width)
    parts: list[str] = []
    for item in drift.drifted:
        parts.extend([*_block(item, width, color), ""])
    unseen = [
        line
        for text in problem_lines(drift.unobserved)
        for line in wrapped(f"not seen: {text}", width, "  # ", "  #   ")
    ]
    if unseen:
        parts.extend([*unseen, ""])
    advice = ignore_lines((item.change.address, item.fields) for item in drift.drifted)
    if advice:
        parts.extend([*(f"  # {line}" for line in advice), ""])
    if drift.pending:
        parts.extend([f"  # not drift: {_count(len(drift.pending), 'change')} of the spec not applied yet", ""])
    parts.append(paint(_last_line(drift), "bold", color))
    return "\n".join(parts) + "\n"


def _moved(change: Change) -> Drifted | None:
    if change.action is Action.CREATE and change.cause is Cause.WORLD:
        return Drifted(change, Move.GONE)
    if change.action is Action.ADOPT:
        return Drifted(change, Move.UNRECORDED, _of_world(change))
    fields = _of_world(change)
    if fields:
        return Drifted(change, Move.CHANGED, fields)
    if change.action is Action.UPDATE and change.cause is Cause.WORLD:
        return Drifted(change, Move.NOT_READY)
    return None


def _of_world(change: Change) -> tuple[FieldChange, ...]:
    return tuple(item for item in change.fields if item.cause in (Cause.WORLD, Cause.BOTH))


def _asked_for(change: Change) -> bool:
    return any(item.cause in (Cause.SPEC, Cause.BOTH) for item in change.fields)


def _block(item: Drifted, width: int, color: bool) -> Iterator[str]:
    change = item.change
    where = f" ({change.source})" if change.source else ""
    said = {
        Move.CHANGED: "was changed outside",
        Move.GONE: "is gone",
        Move.NOT_READY: f"is {change.reason}",
        Move.UNRECORDED: "has lost our record",
    }[item.move]
    yield from wrapped(f"{change.address}{where} {said}", width, "  # ", "  #   ")
    yield f"  {paint(f'{_SIGNS[item.move]} {change.address}', _COLORS[item.move], color)}"
    yield from field_lines(item.fields, width, color)


def _last_line(drift: Drift) -> str:
    if not drift.drifted:
        return "Drift: none seen, but not everything could be seen." if drift.unobserved else "Drift: none."
    counts = ((sum(item.move is move for item in drift.drifted), move.value) for move in Move)
    return f"Drift: {', '.join(f'{count} {word}' for count, word in counts if count)}."


def _count(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
