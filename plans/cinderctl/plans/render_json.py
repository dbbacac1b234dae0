"""The JSON form of a plan: a contract. `format_version` grows in its minor part when members are added, in its
major part when one changes its meaning or goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cinderctl.core.diagnostics import Diagnostic
from cinderctl.core.values import Ref
from cinderctl.plans.model import Action, Cause, Change, FieldChange, Plan, path_text
from cinderctl.plans.words import presentable

__all__ = [
    "FORMAT_VERSION",
    "change_to_json",
    "created_fields",
    "diagnostic_to_json",
    "field_to_json",
    "plan_to_json",
    "render_json",
]

FORMAT_VERSION = "1.0"


def render_json(plan: Plan) -> str:
    """The plan as indented JSON with a newline at the end; no-ops are left out."""
    return json.dumps(plan_to_json(plan), indent=2, ensure_ascii=False) + "\n"


def plan_to_json(plan: Plan) -> dict[str, Any]:
    summary = plan.summary
    return {
        "format_version": FORMAT_VERSION,
        "cluster": plan.cluster,
        "mode": plan.mode.value,
        "spec_digest": plan.spec_digest,
        "changes": [change_to_json(change) for change in plan.changes if change.action is not Action.NO_OP],
        "held": [
            {"address": str(change.address), "reason": change.reason, "source": change.source} for change in plan.held
        ],
        "summary": {
            "create": summary.create,
            "update": summary.update,
            "replace": summary.replace,
            "delete": summary.delete,
            "adopt": summary.adopt,
            "forget": summary.forget,
            "unchanged": sum(change.action is Action.NO_OP for change in plan.changes),
        },
        "unobserved": [diagnostic_to_json(problem) for problem in plan.unobserved],
        "diagnostics": [diagnostic_to_json(problem) for problem in plan.diagnostics],
    }


def change_to_json(change: Change) -> dict[str, Any]:
    """Also what a running step's event carries. A creation lists every input it sets as a field."""
    return {
        "address": str(change.address),
        "action": change.action.value,
        "reason": change.reason,
        "cause": change.cause.value,
        "fields": [field_to_json(item) for item in (*change.fields, *created_fields(change))],
        "depends_on": [str(address) for address in change.depends_on],
        "source": change.source,
        "fingerprint": change.fingerprint,
    }


def created_fields(change: Change) -> Iterator[FieldChange]:
    """The inputs of a resource to be created, leaf by leaf; those that say nothing are left out."""
    if change.action is Action.CREATE:
        yield from _set_fields((), change.inputs)


def diagnostic_to_json(problem: Diagnostic) -> dict[str, Any]:
    return {
        "severity": problem.severity.value,
        "summary": problem.summary,
        "detail": problem.detail,
        "hint": problem.hint,
        "address": str(problem.address) if problem.address else "",
        "path": path_text(problem.path),
        "source": problem.source,
    }


def _set_fields(path: tuple[str | int, ...], value: Any) -> Iterator[FieldChange]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _set_fields((*path, key), item)
    elif value is not None and value not in ({}, [], ""):
        cause = Cause.DEPENDENCY if isinstance(value, Ref) else Cause.SPEC
        yield FieldChange(path, None, value, cause, unknown_after=isinstance(value, Ref))


def field_to_json(item: FieldChange) -> dict[str, Any]:
    """`before` is as the world has it, `after` as the spec wants it."""
    return {
        "path": path_text(item.path),
        "before": presentable(item.before),
        "after": presentable(item.after),
        "cause": item.cause.value,
        "forces_replacement": item.forces_replacement,
        "unknown_after": item.unknown_after,
        "changed_by": item.changed_by,
    }
