"""A plan as bytes: one header line and one JSON document.

`cinderctl-plan 1 <bytes of the document> sha256:<hex of it>`. The digest tells a damaged file from a whole one; it
is no signature. The file holds what changes and what that relies on, never a secret: those appear as a marker with
a short digest and are taken from the spec when the plan is applied, which must say the same as when the plan was
made. Written with mode 0600 by whoever saves it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic, PlanFileError, Severity
from cinderctl.core.digest import sha256_of
from cinderctl.core.values import Ref, map_leaves
from cinderctl.plans.model import Action, Cause, Change, FieldChange, Mode, Plan

__all__ = ["SavedPlan", "load_plan", "save_plan"]

_MAGIC = b"cinderctl-plan"
_VERSION = 1
_REF = "cinderctl:ref"  # a key no Kubernetes object has: its prefix is not a DNS name followed by a slash


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """`spec_digest` and `spec_files` are the saver's: the digest of the spec's text, and where it was read from."""

    plan: Plan
    spec_digest: str = ""
    spec_files: tuple[str, ...] = ()


def save_plan(plan: Plan, *, spec_digest: str = "", spec_files: Sequence[str] = ()) -> bytes:
    """The same plan gives the same bytes."""
    value = {
        "cluster": plan.cluster,
        "mode": plan.mode.value,
        "declared": plan.spec_digest,
        "spec_digest": spec_digest,
        "spec_files": list(spec_files),
        "changes": [_change_out(change) for change in plan.changes],
        "unobserved": [_problem_out(problem) for problem in plan.unobserved],
        "diagnostics": [_problem_out(problem) for problem in plan.diagnostics],
    }
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return b"%s %d %d %s\n%s\n" % (_MAGIC, _VERSION, len(body), sha256_of(body).encode(), body)


def load_plan(data: bytes) -> SavedPlan:
    """Raises: PlanFileError for what is no plan, is cut short, was changed, or comes from a newer version."""
    body = _body(data)
    try:
        value = json.loads(body)
        plan = Plan(
            cluster=value["cluster"],
            mode=Mode(value["mode"]),
            changes=tuple(_change_in(item) for item in value["changes"]),
            spec_digest=value["declared"],
            unobserved=tuple(_problem_in(item) for item in value["unobserved"]),
            diagnostics=tuple(_problem_in(item) for item in value["diagnostics"]),
        )
        return SavedPlan(plan, value["spec_digest"], tuple(value["spec_files"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable("it does not hold a plan", f"{type(error).__name__}: {error}") from error


def _body(data: bytes) -> bytes:
    header, newline, rest = data.partition(b"\n")
    words = header.split()
    if not words or words[0] != _MAGIC:
        raise _unusable("it is not a plan of cinderctl", "A saved plan starts with the word cinderctl-plan")
    if not newline or len(words) != 4 or not (words[1].isdigit() and words[2].isdigit()):
        raise _unusable("it is cut short", "Its first line is not whole")
    version, length = int(words[1]), int(words[2])
    if version > _VERSION:
        raise _unusable(
            "it comes from a newer version of cinderctl",
            f"It has format {version}, this version reads up to {_VERSION}",
            "apply it with the version that saved it, or make the plan again",
        )
    body = rest[:length]
    if len(body) < length:
        raise _unusable("it is cut short", f"{len(body)} of {length} bytes are there")
    if sha256_of(body).encode() != words[3] or rest[length:].strip():
        raise _unusable("it was changed after it was saved", "Its content does not have the digest its first line says")
    return body


def _unusable(what: str, detail: str, hint: str = "make the plan again with `plan --out`") -> PlanFileError:
    return PlanFileError(f"cannot use the saved plan: {what}", detail=detail, hint=hint)


def _change_out(change: Change) -> dict[str, Any]:
    """Members that say nothing are left out, and so are the inputs of what stays as it is."""
    value: dict[str, Any] = {"address": str(change.address), "action": change.action.value}
    unchanged = change.action is Action.NO_OP
    members = {
        "reason": change.reason,
        "cause": change.cause.value if change.cause is not Cause.SPEC else "",
        "fields": [_field_out(item) for item in change.fields],
        "depends_on": [str(address) for address in change.depends_on],
        "recorded": [str(address) for address in change.recorded],
        "after": [str(address) for address in change.after],
        "inputs": {} if unchanged else _encode(change.inputs),
        "source": change.source,
        "held": change.held,
        "relies_on": dict(change.relies_on),
        "fingerprint": change.fingerprint,
    }
    return value | {key: item for key, item in members.items() if item}


def _change_in(value: Mapping[str, Any]) -> Change:
    return Change(
        address=Address.parse(value["address"]),
        action=Action(value["action"]),
        reason=value.get("reason", ""),
        fields=tuple(_field_in(item) for item in value.get("fields", ())),
        depends_on=_addresses(value.get("depends_on", ())),
        inputs=_decode(value.get("inputs", {})),
        source=value.get("source", ""),
        fingerprint=value.get("fingerprint", ""),
        cause=Cause(value.get("cause", Cause.SPEC)),
        recorded=_addresses(value.get("recorded", ())),
        after=_addresses(value.get("after", ())),
        held=value.get("held", False),
        relies_on=value.get("relies_on", {}),
    )


def _field_out(item: FieldChange) -> dict[str, Any]:
    value = {
        "path": list(item.path),
        "before": _encode(item.before),
        "after": _encode(item.after),
        "cause": item.cause.value,
    }
    flags = {
        "forces_replacement": item.forces_replacement,
        "unknown_after": item.unknown_after,
        "changed_by": item.changed_by,
    }
    return value | {key: flag for key, flag in flags.items() if flag}


def _field_in(value: Mapping[str, Any]) -> FieldChange:
    return FieldChange(
        path=tuple(value["path"]),
        before=_decode(value["before"]),
        after=_decode(value["after"]),
        cause=Cause(value["cause"]),
        forces_replacement=value.get("forces_replacement", False),
        unknown_after=value.get("unknown_after", False),
        changed_by=value.get("changed_by", ""),
    )


def _problem_out(problem: Diagnostic) -> dict[str, Any]:
    return {
        "summary": problem.summary,
        "detail": problem.detail,
        "hint": problem.hint,
        "severity": problem.severity.value,
        "address": str(problem.address) if problem.address else "",
        "path": list(problem.path),
        "source": problem.source,
    }


def _problem_in(value: Mapping[str, Any]) -> Diagnostic:
    return Diagnostic(
        summary=value["summary"],
        detail=value["detail"],
        hint=value["hint"],
        severity=Severity(value["severity"]),
        address=Address.parse(value["address"]) if value["address"] else None,
        path=tuple(value["path"]),
        source=value["source"],
    )


def _addresses(values: Sequence[str]) -> tuple[Address, ...]:
    return tuple(map(Address.parse, values))


def _encode(value: Any) -> Any:
    return map_leaves(value, lambda leaf: {_REF: [str(leaf.address), leaf.output]} if isinstance(leaf, Ref) else leaf)


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_REF}:
            address, output = value[_REF]
            return Ref(Address.parse(address), output)
        return {key: _decode(item) for key, item in value.items()}
    return [_decode(item) for item in value] if isinstance(value, list) else value
