"""What happens during a run, as values: the one channel from the engine to the console, to NDJSON and to the
timeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic
from cinderctl.plans.model import Action, Change
from cinderctl.plans.render_json import change_to_json, diagnostic_to_json

__all__ = [
    "FORMAT_VERSION",
    "Event",
    "Phase",
    "RunFinished",
    "RunStarted",
    "StepDone",
    "StepFailed",
    "StepProgress",
    "StepRetried",
    "StepSkipped",
    "StepStarted",
    "event_to_json",
]

FORMAT_VERSION = "1.0"

Phase: TypeAlias = str
"""`create`, `update`, `delete` or `adopt`: a replacement is a delete and a create."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """`steps`: how many there are to do. `at` in seconds since the epoch, in every event."""

    at: float
    run: str
    cluster: str
    mode: str
    steps: int


@dataclass(frozen=True, slots=True)
class StepStarted:
    """The begin of the step is durable and the act comes next."""

    at: float
    address: Address
    phase: Phase
    change: Change


@dataclass(frozen=True, slots=True)
class StepProgress:
    """`done` of `total` in bytes or items, where the step knows."""

    at: float
    address: Address
    phase: Phase
    message: str
    done: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class StepRetried:
    """A failure that may pass; another try comes `after` seconds from now."""

    at: float
    address: Address
    phase: Phase
    attempt: int
    after: float
    diagnostic: Diagnostic


@dataclass(frozen=True, slots=True)
class StepDone:
    at: float
    address: Address
    phase: Phase
    action: Action
    seconds: float


@dataclass(frozen=True, slots=True)
class StepFailed:
    """`log` is what the step kept for this case; `interrupted`: it ended because the user asked."""

    at: float
    address: Address
    phase: Phase
    action: Action
    seconds: float
    diagnostics: tuple[Diagnostic, ...]
    log: str = ""
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """`because`: the resource whose failure is the reason; None when the run was interrupted."""

    at: float
    address: Address
    phase: Phase
    action: Action
    because: Address | None
    reason: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """Counts are resources, not steps."""

    at: float
    run: str
    seconds: float
    done: int
    failed: int
    skipped: int
    interrupted: bool
    diagnostics: tuple[Diagnostic, ...] = ()


Event: TypeAlias = (
    RunStarted | StepStarted | StepProgress | StepRetried | StepDone | StepFailed | StepSkipped | RunFinished
)

_NAMES: Mapping[type, str] = {
    RunStarted: "run_started",
    StepStarted: "step_started",
    StepProgress: "step_progress",
    StepRetried: "step_retried",
    StepDone: "step_done",
    StepFailed: "step_failed",
    StepSkipped: "step_skipped",
    RunFinished: "run_finished",
}


def event_to_json(event: Event) -> dict[str, Any]:
    """One line of NDJSON: `type`, `format_version`, and the fields of the event. Holds no secret."""
    value: dict[str, Any] = {"type": _NAMES[type(event)], "format_version": FORMAT_VERSION}
    for each in fields(event):
        value[each.name] = _json(getattr(event, each.name))
    return value


def _json(value: Any) -> Any:
    match value:
        case Address():
            return str(value)
        case Change():
            return change_to_json(value)
        case Diagnostic():
            return diagnostic_to_json(value)
        case tuple():
            return [_json(item) for item in value]
        case Action():
            return value.value
        case _:
            return value
