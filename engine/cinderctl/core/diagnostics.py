"""Errors as a user reads them: what, where, why, what to do.

CinderError
├── UsageError          64  the command line asks for something impossible
├── SpecError            1  the spec cannot be used; one diagnostic for each problem
├── ApprovalError        1  a change needs an approval that was not given
├── PlanFileError        1  a saved plan cannot be read
├── PartialError         3  some steps failed, others are done
├── UnobservableError    4  part of the world could not be seen
├── StalePlanError       5  the world moved since the plan was saved
├── LockedError          6  another run holds the cluster
├── InterruptedRunError 130 the user stopped the run
├── DeadlineError        1  a condition was not met in time
└── TransientError       1  worth another try, not before `retry_after` seconds

Foreign exceptions become one of these once, at the edge, with `from`. The command line renders; nobody else prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from cinderctl.core.address import Address

__all__ = [
    "ApprovalError",
    "CinderError",
    "DeadlineError",
    "Diagnostic",
    "InterruptedRunError",
    "LockedError",
    "PartialError",
    "PlanFileError",
    "Severity",
    "SpecError",
    "StalePlanError",
    "TransientError",
    "UnobservableError",
    "UsageError",
]


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem. `source` is where it stands (`cluster.yaml:7`), `path` the field, `hint` what to do about it."""

    summary: str
    detail: str = ""
    hint: str = ""
    severity: Severity = Severity.ERROR
    address: Address | None = None
    path: tuple[str | int, ...] = ()
    source: str = ""

    def located(self, *, address: Address | None = None, source: str = "") -> Diagnostic:
        """The same problem with a place, where it has none of its own yet."""
        return replace(self, address=self.address or address, source=self.source or source)


class CinderError(Exception):
    """The one root. Carries diagnostics; `exit_code` is what the process ends with when this reaches the top."""

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str | Diagnostic | Sequence[Diagnostic], *, detail: str = "", hint: str = "") -> None:
        match problem:
            case str():
                self.diagnostics: tuple[Diagnostic, ...] = (Diagnostic(problem, detail=detail, hint=hint),)
            case Diagnostic():
                self.diagnostics = (problem,)
            case _:
                self.diagnostics = tuple(problem)
        super().__init__("; ".join(d.summary for d in self.diagnostics))


class UsageError(CinderError):
    exit_code = 64


class SpecError(CinderError):
    pass


class ApprovalError(CinderError):
    pass


class PlanFileError(CinderError):
    pass


class PartialError(CinderError):
    exit_code = 3


class UnobservableError(CinderError):
    exit_code = 4


class StalePlanError(CinderError):
    exit_code = 5


class LockedError(CinderError):
    exit_code = 6


class InterruptedRunError(CinderError):
    exit_code = 130


class DeadlineError(CinderError):
    pass


class TransientError(CinderError):
    """A failure that may pass. `retry_after` in seconds."""

    def __init__(
        self,
        problem: str | Diagnostic | Sequence[Diagnostic],
        *,
        detail: str = "",
        hint: str = "",
        retry_after: float = 0.5,
    ) -> None:
        super().__init__(problem, detail=detail, hint=hint)
        self.retry_after = retry_after
