"""The plan: a value that says what would change and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic

__all__ = ["Action", "Cause", "Change", "FieldChange", "Mode", "Plan", "Summary"]


class Action(StrEnum):
    """What happens to one resource. `symbol` is Terraform's sign, plus `=` for adopt."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    ADOPT = "adopt"
    FORGET = "forget"
    NO_OP = "no-op"

    @property
    def symbol(self) -> str:
        return _SYMBOLS[self]


_SYMBOLS = {
    Action.CREATE: "+",
    Action.UPDATE: "~",
    Action.REPLACE: "-/+",
    Action.DELETE: "-",
    Action.ADOPT: "=",
    Action.FORGET: ".",
    Action.NO_OP: " ",
}


class Cause(StrEnum):
    """Who moved: the spec, the world, both, or nobody (the field follows from another resource's change)."""

    SPEC = "spec"
    WORLD = "world"
    BOTH = "both"
    DEPENDENCY = "dependency"


class Mode(StrEnum):
    APPLY = "apply"
    DESTROY = "destroy"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One changed leaf. A missing value is None; `unknown_after`: the value
    comes from a resource that does not exist yet. Values are redacted already."""

    path: tuple[str | int, ...]
    before: Any
    after: Any
    cause: Cause
    forces_replacement: bool = False
    unknown_after: bool = False
    changed_by: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one resource. `reason` is for people: nothing may branch on it."""

    address: Address
    action: Action
    reason: str = ""
    fields: tuple[FieldChange, ...] = ()
    depends_on: tuple[Address, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    create: int = 0
    update: int = 0
    replace: int = 0
    delete: int = 0
    adopt: int = 0
    forget: int = 0

    @property
    def total(self) -> int:
        return self.create + self.update + self.replace + self.delete + self.adopt + self.forget


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole. `changes` holds every resource, no-ops included, in execution order (tear-down first).

    `fingerprint` of a change is the digest of the observation it relies on. `unobserved` lists what could not be seen.
    """

    cluster: str
    mode: Mode
    changes: tuple[Change, ...]
    spec_digest: str = ""
    unobserved: tuple[Diagnostic, ...] = ()

    @property
    def pending(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.action is not Action.NO_OP)

    @property
    def summary(self) -> Summary:
        counts: dict[str, int] = {}
        for change in self.pending:
            counts[change.action.value] = counts.get(change.action.value, 0) + 1
        return Summary(**counts)
