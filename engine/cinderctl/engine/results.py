"""How a run ended, for each resource and as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import (
    CinderError,
    Diagnostic,
    InterruptedRunError,
    PartialError,
)
from cinderctl.plans.model import Action

__all__ = ["ApplyResult", "Outcome", "ResourceResult"]


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class ResourceResult:
    """One line of the table at the end. `seconds` is the time its steps took; `because` the failure it was skipped
    for.
    """

    address: Address
    action: Action
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""
    because: Address | None = None
    diagnostics: tuple[Diagnostic, ...] = ()
    log: str = ""


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """`results` in the order of the plan, pending changes only. `outputs` of all that was built or was there."""

    run: str
    results: tuple[ResourceResult, ...]
    seconds: float = 0.0
    interrupted: bool = False
    diagnostics: tuple[Diagnostic, ...] = ()
    outputs: Mapping[Address, Mapping[str, Any]] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> int:
        return sum(item.outcome is outcome for item in self.results)

    def error(self) -> CinderError | None:
        """What to end the process with: its type carries the exit code. None when all that was planned is done.

        What could not be seen is the plan's to say: a second look after this run may see it.
        """
        problems = [problem for item in self.results for problem in item.diagnostics]
        problems = [*self.diagnostics, *dict.fromkeys(problems)]
        if self.interrupted:
            hint = "run the command again: it goes on where this run stopped"
            return InterruptedRunError([*problems, Diagnostic("the run was interrupted", hint=hint)])
        if problems:
            return (PartialError if self.count(Outcome.DONE) else CinderError)(problems)
        return None
