"""Doing one step: look once more, call the kind, try again what may pass."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import (
    CinderError,
    Diagnostic,
    StalePlanError,
    TransientError,
    UnobservableError,
)
from cinderctl.core.record import Record
from cinderctl.core.values import Ref, map_leaves, redacted
from cinderctl.engine.diff import ignored_drift, placed, value_at
from cinderctl.engine.events import Event, Phase, StepRetried
from cinderctl.engine.facts import moved_facts
from cinderctl.engine.kinds import (
    Declaration,
    Existence,
    Observation,
    ResourceKind,
    Scope,
    inputs_as_dict,
)
from cinderctl.engine.observe import Kinds, kind_of, observe_one
from cinderctl.engine.refs import resolve_inputs
from cinderctl.engine.steps import RunningStep
from cinderctl.plans.model import Action, Change, FieldChange

__all__ = ["Ended", "Work", "perform"]

_FIRST_PAUSE = 0.1  # seconds before the second try, doubled each time
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step ended: `error` is None when it is done. `outputs` of a create, update or adopt."""

    outputs: Mapping[str, Any] | None = None
    error: BaseException | None = None
    log: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """What every step of a run shares. `outputs` is filled as steps end; `emit` may be called from any thread.

    `patience`: seconds to wait for a resource to be seen again: an API server that restarts in the same run is back
    then.
    """

    cluster: str
    kinds: Kinds
    declarations: Mapping[Address, Declaration]
    observations: Mapping[Address, Observation]
    outputs: dict[Address, Mapping[str, Any]]
    emit: Callable[[Event], None]
    now: Callable[[], float]
    look_again: bool
    patience: float
    stopping: threading.Event


def prepare(work: Work, change: Change, phase: Phase) -> RunningStep:
    """Raises: CinderError for a kind that is not there, or a reference that cannot be resolved."""
    kind = kind_of(work.kinds, change.address)
    record = _record_found(work, change) if phase == "delete" else _record_to_leave(work, change)
    return RunningStep(change.address, phase, record, deadline=kind.deadline, emit=work.emit, now=work.now)


def perform(work: Work, change: Change, phase: Phase, step: RunningStep) -> Ended:
    """Never raises: what went wrong is in the result."""
    try:
        kind = kind_of(work.kinds, change.address)
        want = None if phase == "delete" else _wanted(work, change)
        have = _confirmed(work, change, phase, want, step)
        if phase in ("update", "adopt"):
            want = _leaving_ignored(work, change, want, have)
        outputs = _with_patience(work, change, phase, step, partial(_act, kind, change, phase, want, have, step))
    except BaseException as error:  # noqa: BLE001 - whatever a kind raises ends its step, never the run
        return Ended(error=error, log=step.logged)
    return Ended(outputs, log=step.logged)


def explain(error: BaseException, change: Change, *, debug: bool) -> tuple[Diagnostic, ...]:
    """What went wrong, for people. A foreign exception is our fault: it shows its place only when asked."""
    if isinstance(error, CinderError):
        return tuple(problem.located(address=change.address, source=change.source) for problem in error.diagnostics)
    detail = "".join(traceback.format_exception(error)) if debug else ""
    summary = f"internal error in {change.address}: {type(error).__name__}: {error}"
    hint = "" if debug else "run again with --debug to see where it comes from, and report it"
    return (Diagnostic(summary, detail, hint, address=change.address, source=change.source),)


def _act(  # noqa: PLR0917 - the arguments of one call to a kind
    kind: ResourceKind[Any], change: Change, phase: Phase, want: Any, have: Observation, step: RunningStep
) -> Mapping[str, Any]:
    step.check_cancelled()
    if phase == "delete":
        if have.existence is not Existence.ABSENT:
            kind.delete(have, step)
        return {}
    if phase == "update":
        return kind.update(change.address, want, have, _fields_known(change, step.record), step)
    outputs = kind.create(change.address, want, step)
    if phase == "adopt" and change.fields:
        outputs = kind.update(change.address, want, have, _fields_known(change, step.record), step)
    return outputs


def _with_patience(
    work: Work, change: Change, phase: Phase, step: RunningStep, act: Callable[[], Mapping[str, Any]]
) -> Mapping[str, Any]:
    attempt = 1
    while True:
        try:
            return act()
        except TransientError as error:
            pause = min(
                max(error.retry_after, _FIRST_PAUSE * 2 ** (attempt - 1)), max(error.retry_after, _LONGEST_PAUSE)
            )
            if pause >= step.remaining or work.stopping.is_set():
                raise
            problem = error.diagnostics[0].located(address=change.address)
            attempt += 1
            work.emit(StepRetried(work.now(), change.address, phase, attempt, pause, problem))
            step.pause(pause)


def _confirmed(work: Work, change: Change, phase: Phase, want: Any, step: RunningStep) -> Observation:
    """The observation the step works on: the world as it is now, which must still be what the plan shows.

    Less than planned is fine (an object to delete that is gone), more is not. Raises: StalePlanError,
    UnobservableError.
    """
    planned = work.observations.get(change.address, Observation.absent(change.address))
    rebuilding = phase == "create" and change.action is Action.REPLACE
    if not work.look_again or not change.relies_on:
        return planned
    have = _look_until_seen(work, change, want, step)
    if phase == "delete" and have.existence is Existence.ABSENT:
        return have
    if phase == "create":
        if have.existence is Existence.ABSENT:
            return have
        ours = have.record is not None and have.record.cluster == work.cluster and not have.foreign
        if ours or (rebuilding and not have.foreign):
            return have  # what an interrupted try left: creating adopts it
        owner = have.foreign or (f"cluster {have.record.cluster}" if have.record else "nobody we know")
        raise StalePlanError(_moved(change, f"it exists by now and belongs to {owner}"))
    moved = moved_facts(change, have, during_run=True)
    if phase == "delete":
        moved = [name for name in moved if not name.startswith("attributes.")]
    if moved:
        raise StalePlanError(
            _moved(change, "this moved: " + ", ".join(name.removeprefix("attributes.") for name in moved))
        )
    return have


def _look_until_seen(work: Work, change: Change, want: Any, step: RunningStep) -> Observation:
    scope, kind = Scope(work.cluster), kind_of(work.kinds, change.address)
    end = time.monotonic() + min(work.patience, step.remaining)
    pause = _FIRST_PAUSE
    while True:
        have = observe_one(kind, change.address, want, scope)
        if have.existence is not Existence.UNKNOWN:
            return have
        if time.monotonic() + pause > end or work.stopping.is_set():
            raise UnobservableError(have.unknown or Diagnostic(f"{change.address} could not be seen"))
        step.pause(pause)
        pause *= 2


def _moved(change: Change, what: str) -> Diagnostic:
    return Diagnostic(
        f"{change.address} is not what the plan was made for: {what}",
        "Nothing was done to it, nor to what stands on it",
        "plan again to see what it takes now",
        address=change.address,
        source=change.source,
    )


def _wanted(work: Work, change: Change) -> Any:
    """The inputs for the kind, references resolved."""
    declaration = work.declarations[change.address]
    return resolve_inputs(declaration.inputs, lambda ref: _resolved(work, change, ref))


def _leaving_ignored(work: Work, change: Change, want: Any, have: Observation) -> Any:
    """The inputs with what drifted under `lifecycle.ignore` as the world has it, so that writing the rest leaves it
    alone.

    The record keeps what the spec says: the drift stays drift, and ignored.
    """
    ignore = work.declarations[change.address].lifecycle.ignore
    if not ignore:
        return want
    plain = map_leaves(inputs_as_dict(want), lambda leaf: leaf)
    kept = ignored_drift(redacted(plain), have.attributes, ignore, (item.path for item in change.fields))
    for path, value in kept:
        want = replace(want, **{str(path[0]): placed(plain[str(path[0])], path[1:], value)})
        plain = inputs_as_dict(want)
    return want


def _resolved(work: Work, change: Change, ref: Ref) -> Any:
    outputs = work.outputs.get(ref.address)
    if outputs is None:
        planned = work.observations.get(ref.address)
        outputs = planned.outputs if planned is not None else {}
    if ref.output not in outputs:
        summary = f"{ref.address} has no output {ref.output!r}"
        detail = "Known: " + (", ".join(sorted(outputs)) or "none")
        raise CinderError(Diagnostic(summary, detail, address=change.address, source=change.source))
    return outputs[ref.output]


def _record_to_leave(work: Work, change: Change) -> Record:
    declaration = work.declarations.get(change.address)
    if declaration is None:
        raise CinderError(Diagnostic(f"{change.address} is in the plan and not in the spec", address=change.address))
    inputs = redacted(inputs_as_dict(_wanted(work, change)))
    return Record(work.cluster, change.address, inputs, change.depends_on, declaration.lifecycle.protect)


def _record_found(work: Work, change: Change) -> Record:
    observation = work.observations.get(change.address)
    if observation is not None and observation.record is not None:
        return observation.record
    return Record(work.cluster, change.address, dict(change.inputs), change.recorded)


def _fields_known(change: Change, record: Record) -> tuple[FieldChange, ...]:
    """The planned fields, with what was to be known after apply now known."""
    return tuple(
        replace(item, after=value_at(record.inputs, item.path), unknown_after=False) if item.unknown_after else item
        for item in change.fields
    )
