"""The decision for one declared resource that can be seen: what happens to it, why, and who moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.record import Record
from cinderctl.core.values import redacted
from cinderctl.engine.diff import diff_inputs
from cinderctl.engine.kinds import Declaration, Existence, Observation
from cinderctl.plans.model import Action, Cause, FieldChange, path_text

__all__ = ["Circumstances", "Decision", "decide"]

_NAMED_IN_REASON = 3  # fields; more make a reason nobody reads, and they are listed below it anyway


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else decides about one resource. `want`: redacted inputs, references resolved where known; `declared`:
    before that.

    `below`: the replaced resource it stands on. `unfinished`: the action an earlier run began and did not end well.
    `known`: it is known to have been there.
    """

    want: Mapping[str, Any]
    declared: Mapping[str, Any]
    edges: Sequence[Address]
    replaces: frozenset[str] = frozenset()
    asked: bool = False
    below: Address | None = None
    unfinished: str = ""
    known: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """`by_itself`: a replacement starts here, not at something it stands on."""

    action: Action
    reason: str = ""
    cause: Cause = Cause.SPEC
    fields: tuple[FieldChange, ...] = ()
    by_itself: bool = False


def decide(declaration: Declaration, have: Observation, about: Circumstances) -> Decision:
    """The observation is present or absent, and not foreign."""
    if have.existence is Existence.ABSENT:
        return _creation(about)
    record = have.record
    fields = diff_inputs(
        about.want,
        redacted(have.attributes),
        record.inputs if record else None,
        declared=about.declared,
        replaces=about.replaces,
        ignore=declaration.lifecycle.ignore,
        changed_by=have.changed_by,
    )
    forcing = [item for item in fields if item.forces_replacement]
    if forcing:
        named = ", ".join(f"`{path_text(item.path)}`" for item in forcing[:_NAMED_IN_REASON])
        reason = f"{named} cannot change in place ({_words(forcing[0])})"
        return Decision(Action.REPLACE, reason, _cause_of(forcing, Cause.SPEC), fields, by_itself=True)
    if about.asked:
        return Decision(Action.REPLACE, "replacement was asked for", Cause.SPEC, fields, by_itself=True)
    if about.below is not None:
        return Decision(Action.REPLACE, f"stands on {about.below}, which is replaced", Cause.DEPENDENCY, fields)
    if record is None:
        reason = "is there without our record, as an interrupted run leaves it: taken over"
        return Decision(Action.ADOPT, reason, Cause.WORLD, fields)
    if not have.ready:
        condition = have.condition or "its condition is not met"
        return Decision(Action.UPDATE, f"not ready: {condition}", Cause.WORLD, fields)
    if about.unfinished and about.unfinished != Action.DELETE.value:
        reason = f"an earlier run did not finish it ({about.unfinished})"
        return Decision(Action.UPDATE, reason, _cause_of(fields, Cause.SPEC), fields)
    fields += _bookkeeping(declaration, record, about.edges)
    if not fields:
        return Decision(Action.NO_OP)
    return Decision(Action.UPDATE, _reason(fields), _cause_of(fields, Cause.SPEC), fields)


def _creation(about: Circumstances) -> Decision:
    if about.known:
        return Decision(Action.CREATE, "is gone from the world", Cause.WORLD)
    if about.unfinished:
        return Decision(Action.CREATE, f"an earlier run did not finish it ({about.unfinished})")
    return Decision(Action.CREATE, "is not there yet")


def _bookkeeping(declaration: Declaration, record: Record, edges: Sequence[Address]) -> tuple[FieldChange, ...]:
    """What the record on the object says otherwise than the spec: tear-down goes by the record, so it must be right."""
    found: list[FieldChange] = []
    before, after = sorted(map(str, record.depends_on)), sorted(map(str, edges))
    if before != after:
        found.append(FieldChange(("depends_on",), before, after, Cause.SPEC))
    if record.protect != declaration.lifecycle.protect:
        found.append(FieldChange(("lifecycle", "protect"), record.protect, declaration.lifecycle.protect, Cause.SPEC))
    return tuple(found)


def _reason(fields: Sequence[FieldChange]) -> str:
    named = [f"`{path_text(item.path)}` {_words(item)}" for item in fields[:_NAMED_IN_REASON]]
    more = len(fields) - len(named)
    return ", ".join(named) + (f", and {more} more" if more else "")


def _words(change: FieldChange) -> str:
    match change.cause:
        case Cause.SPEC:
            return "changed in the spec"
        case Cause.WORLD:
            return f"changed outside by {change.changed_by}" if change.changed_by else "changed outside"
        case Cause.BOTH:
            return "changed both in the spec and outside"
        case Cause.DEPENDENCY:
            return "follows from what it refers to"


def _cause_of(fields: Sequence[FieldChange], otherwise: Cause) -> Cause:
    causes = {item.cause for item in fields}
    if not causes:
        return otherwise
    if Cause.BOTH in causes or {Cause.SPEC, Cause.WORLD} <= causes:
        return Cause.BOTH
    return next(cause for cause in (Cause.WORLD, Cause.SPEC, Cause.DEPENDENCY) if cause in causes)
