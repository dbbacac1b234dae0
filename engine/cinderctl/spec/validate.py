"""Values to the model. What is at fault is reported, then left out, so that what stands on the rest is checked too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from cinderctl.spec.diagnostics import SpecDiagnostic
from cinderctl.spec.messages import explain
from cinderctl.spec.tree import Remainder, without
from cinderctl.spec.v1alpha1 import ClusterConfiguration
from cinderctl.spec.written import Path

__all__ = ["Validated", "validate"]

# Each round leaves out at least one value; nesting bounds how many rounds one fault can take.
_MOST_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Validated:
    """`config` is made of what is sound of the values, `value` are those; None when not even that makes a spec.
    `problems` have paths of the values as given."""

    config: ClusterConfiguration | None
    remainder: Remainder
    problems: tuple[SpecDiagnostic, ...]

    @property
    def value(self) -> Any:
        return self.remainder.value

    def original(self, path: Path) -> Path:
        """Where a path of `config` stood in the values as given."""
        return self.remainder.original(path)


def validate(value: Any) -> Validated:
    """Check values against the models; report what is wrong in the first round only, later rounds follow from it."""
    holes: frozenset[Path] = frozenset()
    problems: tuple[SpecDiagnostic, ...] = ()
    remainder = without(value, holes)
    for number in range(_MOST_ROUNDS):
        try:
            return Validated(ClusterConfiguration.model_validate(remainder.value), remainder, problems)
        except ValidationError as error:
            found = explain(error, remainder.value)
            if number == 0:
                problems = tuple(replace(problem, path=remainder.original(problem.path)) for problem in found)
            more = frozenset(remainder.original(_faulty(problem.path, remainder.value)) for problem in found)
            if () in more or more <= holes:
                break
            holes |= more
            remainder = without(value, holes)
    return Validated(None, remainder, problems)


def _faulty(path: Path, value: Any) -> Path:
    """The part to leave out: the value at the path, or the map that lacks it."""
    for depth, part in enumerate(path):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return path[:depth]
    return path
