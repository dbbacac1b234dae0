"""The plan: a value that says what would change and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic, Severity

__all__ = ["CONDITION_FIELDS", "Action", "Cause", "Change", "FieldChange", "Mode", "Plan", "Summary", "path_text"]


CONDITION_FIELDS = frozenset({"expiry", "provisioner", "state", "unexpected_exits"})
"""Inputs that say in what condition a thing is to be: to ignore their drift would be to ignore a fault."""


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


def path_text(path: Sequence[str | int]) -> str:
    """A field path as people write it: `components.kube-scheduler.args.v`, `mirrors."myregistry.dev"`."""
    return ".".join(f'"{part}"' if isinstance(part, str) and not _PLAIN(part) else str(part) for part in path)


_PLAIN = re.compile(r"[^\s.\"]+").fullmatch


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
    """What happens to one resource. `reason` is for people: nothing may branch on it; `cause` is for programs.

    `depends_on` are the declared edges (what it is built on), `recorded` those found on the object (the order of
    tear-down); `after` names kept resources that must let go of it before it may be deleted. `held`: it would
    change, or might, but is left alone for the reason given. `relies_on` maps each observed fact the change rests
    on (`existence`, `attributes.port`) to a short digest; `fingerprint` is the digest of them all. References in
    `inputs` that are not known yet stay `Ref`.
    """

    address: Address
    action: Action
    reason: str = ""
    fields: tuple[FieldChange, ...] = ()
    depends_on: tuple[Address, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    fingerprint: str = ""
    cause: Cause = Cause.SPEC
    recorded: tuple[Address, ...] = ()
    after: tuple[Address, ...] = ()
    held: bool = False
    relies_on: Mapping[str, str] = field(default_factory=dict)


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
    """The whole. `changes` holds every resource, no-ops included, in execution order: tear-down, then building,
    then the deletions that wait for a kept resource to let go.

    `fingerprint` of a change is the digest of the observation it relies on. `unobserved` lists what could not be
    seen. `diagnostics` say what was left alone and why: one of severity error forbids applying the plan.
    """

    cluster: str
    mode: Mode
    changes: tuple[Change, ...]
    spec_digest: str = ""
    unobserved: tuple[Diagnostic, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """What forbids applying: an object that is somebody else's, a protected one that would have to go."""
        return tuple(problem for problem in self.diagnostics if problem.severity is Severity.ERROR)

    @property
    def held(self) -> tuple[Change, ...]:
        """What is left alone although it would change, or might."""
        return tuple(change for change in self.changes if change.held)

    @property
    def pending(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.action is not Action.NO_OP)

    @property
    def summary(self) -> Summary:
        counts: dict[str, int] = {}
        for change in self.pending:
            counts[change.action.value] = counts.get(change.action.value, 0) + 1
        return Summary(**counts)
